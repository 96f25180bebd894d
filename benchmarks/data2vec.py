"""data2vec's training step compared with a simple one on transformers, v2 with v1, and with the processor's matrix
rate.

A step has the forward passes of teacher and student, the backward pass, AdamW, and the update of the teacher. The peer
is a straightforward program with transformers: a deep copy as the teacher, all hidden states of both, and a loop over
parameters. Both start from the same weights and have the same masked inputs in float32 without dropout, and the same
targets (outputs of blocks). Their losses are compared before the measurement: they are equal in the first step; in the
second, after an update of optimizers and teachers, they are equal except for the effect of parameters that only
transformers trains (token types) or decays (norms). Neither clips gradients.

    python benchmarks/data2vec.py [--quick] [--json FILE]
"""

from __future__ import annotations

import copy
import math
import random
import tempfile
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from compare import Row, arguments, compare, report
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn
from transformers import (
    Data2VecTextConfig,
    Data2VecTextModel,
    Data2VecVisionConfig,
    Data2VecVisionModel,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from vislang.convert.transformers import convert
from vislang.models.augmentation import Augmentation
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.front_ends import ImageConfig, Modalities
from vislang.models.data2vec.model import Data2Vec, TeacherConfig
from vislang.models.data2vec.objective import Masked, ObjectiveConfig
from vislang.nn.attention import SelfAttention
from vislang.nn.averaging import average_into
from vislang.nn.device import to_device
from vislang.nn.masking import block_mask, inverse_block_mask, mask_tokens

IMAGES, TEXTS, TOKENS = 8, 8, 128
COPIES, IMAGES_V2 = 16, 2
PATCHES, MASKED = 196, 118
DECAY, LR = 0.999, 1e-5


def image_batch(generator: torch.Generator, images: int = IMAGES) -> Masked:
    """Images, 60 % masked in blocks."""
    mask = torch.stack([block_mask(14, 14, MASKED, generator).flatten() for _ in range(images)])
    return Masked("image", torch.randn(images, 3, 224, 224, generator=generator), mask)


def text_batch(generator: torch.Generator, mask_id: int, texts: int = TEXTS) -> Masked:
    """Texts of 128 tokens without padding, 15 % masked."""
    tokens = torch.randint(4, 50_000, (texts, TOKENS), generator=generator)
    masked = mask_tokens(tokens, torch.ones_like(tokens, dtype=torch.bool), mask_id, 50_000, generator)
    return Masked("text", tokens, masked.mask, masked.input_ids)


def ours(model: Data2Vec, batch: Masked) -> Callable[[], float]:
    """vislang's step, as in its training loop."""
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": 0.01},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)

    def step() -> float:
        loss = torch.stack(list(model(batch).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        model.after_step()
        return loss.item()

    return step


def plain(student: PreTrainedModel, head: nn.Module, batch: Masked, top_k: int, beta: float) -> Callable[[], float]:
    """The same step with transformers."""
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    student.train()
    optimizer = torch.optim.AdamW([*student.parameters(), *head.parameters()], lr=LR, fused=True)

    def read(values: Tensor) -> Tensor:
        if batch.modality == "image":
            return student(values, bool_masked_pos=batch.mask).last_hidden_state[:, 1:]
        return student(batch.student_values).last_hidden_state

    def step() -> float:
        with torch.no_grad():
            states = teacher(batch.values, output_hidden_states=True).hidden_states[-top_k:]
            targets = sum(F.layer_norm(state, state.shape[-1:]) for state in states) / top_k
            targets = targets[:, -batch.mask.shape[1] :][batch.mask]
        predictions = head(read(batch.values)[batch.mask])
        loss = F.smooth_l1_loss(predictions, targets, beta=beta, reduction="sum")
        loss = loss / math.sqrt(targets.shape[-1]) / len(targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for trailing, parameter in zip(teacher.parameters(), student.parameters(), strict=True):
                trailing.mul_(DECAY).add_(parameter, alpha=1 - DECAY)
        return loss.item()

    return step


def image_peer(**shape: int) -> PreTrainedModel:
    """ViT-B with shared relative positions, as in the original's pretraining."""
    config = Data2VecVisionConfig(
        use_mask_token=True, use_shared_relative_position_bias=True, drop_path_rate=0.0, **shape
    )
    return Data2VecVisionModel(config, add_pooling_layer=False)


def text_peer(**shape: int) -> PreTrainedModel:
    """The base model of text."""
    config = Data2VecTextConfig(
        vocab_size=50_265,
        max_position_embeddings=514,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **shape,
    )
    return Data2VecTextModel(config, add_pooling_layer=False)


def converted(theirs: PreTrainedModel) -> Data2Vec:
    """The same weights in vislang."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return convert(folder)


def both(
    kind: str, batch_size: int = IMAGES, device: str = "cpu", **shape: int
) -> tuple[Callable[[], float], Callable[[], float], Data2Vec]:
    """Our step, that of transformers, and our model, which both start with the same weights.

    Args:
        kind: ``image`` or ``text``.
        batch_size: images or texts.
        device: where they compute.
        shape: settings of transformers' configuration; without any, the base model.

    Raises:
        AssertionError: the two compute different losses.
    """
    torch.manual_seed(0)
    theirs = image_peer(**shape) if kind == "image" else text_peer(**shape)
    model = converted(theirs)
    width = model.student.config.width
    if kind == "image":
        head: nn.Module = nn.Linear(width, width)
    else:
        head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
    model.heads[kind] = copy.deepcopy(head)
    model.objective_config.end_of_block = True
    model.teacher_config = TeacherConfig(DECAY, DECAY, 0, model.teacher_config.scope)
    generator = torch.Generator().manual_seed(0)
    batch = image_batch(generator, batch_size) if kind == "image" else text_batch(generator, 50_264, batch_size)
    batch = to_device(batch, device)
    step = ours(model.to(device), batch)
    config = model.objective_config
    peer = plain(theirs.to(device), head.to(device), batch, config.top_k, config.beta)
    for number, tolerance in ((1, 1e-5), (2, 1e-3)):
        losses = step(), peer()
        print(f"{kind}, step {number}: loss {losses[0]:.5f} here, {losses[1]:.5f} with transformers")
        assert math.isclose(*losses, rel_tol=tolerance), "the losses differ"
    return step, peer, model


def step_against_transformers(kind: str, rounds: int) -> tuple[Row, Callable[[], float], Data2Vec]:
    """A row, and our step and model for other rows."""
    step, peer, model = both(kind)
    return compare(f"{kind} v1 vs. transformers", step, peer, 0.8, rounds, warmup=1), step, model


def averaging_against_loop(model: Data2Vec, rounds: int) -> Row:
    """The update of the teacher alone, compared with a loop over its parameters."""
    students = dict(model.student.named_parameters())
    pairs = [(mine, students[name]) for name, mine in model.teacher.named_parameters()]

    @torch.no_grad()
    def loop() -> None:
        for trailing, parameter in pairs:
            trailing.mul_(DECAY).add_(parameter, alpha=1 - DECAY)

    return compare(
        "teacher's average vs. a loop", lambda: average_into(model.teacher, model.student, DECAY), loop, 1.0, 5 * rounds
    )


def second_generation(images: int = IMAGES_V2, device: str = "cpu", depth: int = 10) -> Callable[[], float]:
    """A step of v2 at ViT-B's size: 80 % masked, sixteen masks for each image, decoder of 6 layers of width 768."""
    model = Data2Vec(
        EncoderConfig(depth=depth),
        Modalities(image=ImageConfig(positions="fixed", prenet_depth=2, norm=True, decoder=DecoderConfig())),
        ObjectiveConfig("v2", top_k=depth, layer_norms=("instance",), mean_norms=("layer",), class_loss=0.01),
        TeacherConfig(0.9998, 0.99999, 100_000, "all"),
    )
    generator = torch.Generator().manual_seed(0)
    mask = inverse_block_mask(images * COPIES, 14, 14, 0.8, generator).flatten(1)
    batch = Masked("image", torch.randn(images, 3, 224, 224, generator=generator), mask)
    return ours(model.to(device), to_device(batch, device))


def v2_against_v1(step_v1: Callable[[], float], rounds: int) -> Row:
    """The ratio of masked samples per second, v2 to v1."""
    row = compare("", second_generation(), step_v1, math.inf, rounds, warmup=1)
    ratio = (IMAGES_V2 * COPIES / row.ours_s) / (IMAGES / row.peer_s)
    name = f"image v2 ({IMAGES_V2} x {COPIES}) vs. v1 ({IMAGES})"
    return Row(name, ratio, "in samples/s", ">= 3", ratio >= 3, row.ours_s, row.peer_s, rounds)


def needed_operations(width: int = 768, depth: int = 12, mlp_width: int = 3072, images: int = IMAGES) -> float:
    """Floating-point operations of a v1 image step: two per multiply-add; a forward and backward pass is three times
    the forward pass.

    A block needs the keys and values of every token (2 w^2 each), and for every token that matters its query and its
    output (2 w^2), two products with all t tokens (2 t w), and the feed-forward (2 w h). In the last block only masked
    positions matter. Counted are the teacher's pass, the student's three times, the patches (the student's, whose
    input needs no gradient: 2 n) and the head on masked positions. Norms, activations and the optimizer count nothing.
    """
    tokens = PATCHES + 1
    of_output = 2 * width**2 + 2 * tokens * width + 2 * width * mlp_width
    reading = depth * tokens * 2 * width**2 + ((depth - 1) * tokens + MASKED) * of_output
    patches = PATCHES * 3 * 16**2 * width
    return 2.0 * images * (4 * reading + 2 * patches + 3 * MASKED * width**2)


def share_of_machine(step: Callable[[], float], rounds: int, size: int = 4096) -> Row:
    """The rate of necessary operations, relative to that of a large ``torch.matmul``, timed alternately."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    product = torch.empty(size, size)

    def multiply() -> None:
        torch.matmul(left, right, out=product)

    row = compare("", step, multiply, math.inf, rounds, warmup=1)
    rates = needed_operations() / row.ours_s, 2.0 * size**3 / row.peer_s
    print(f"image v1 step {rates[0] / 1e9:.0f} GFLOP/s, torch.matmul {rates[1] / 1e9:.0f} GFLOP/s")
    share = rates[0] / rates[1]
    return Row(
        "image v1, rate of necessary operations",
        share,
        "of matmul",
        ">= 0.6",
        share >= 0.6,
        row.ours_s,
        row.peer_s,
        rounds,
    )


def augmentation_against_plain_pillow(rounds: int, size: int = 224, count: int = 8) -> Row:
    """Random resized crop, flip and colour jitter of photographs of three megapixels, compared with separate steps."""
    rng = np.random.default_rng(0)
    photograph = Image.fromarray(rng.integers(0, 256, (1500, 2000, 3), dtype=np.uint8))
    augmentation = Augmentation(hue=0.1)

    def whole() -> None:
        for seed in range(count):
            augmentation(photograph, size, random.Random(seed))

    def plain() -> None:
        for seed in range(count):
            draw = random.Random(seed)
            box = tuple(round(edge) for edge in augmentation.crop(*photograph.size, draw))
            out = photograph.crop(box).resize((size, size), Image.Resampling.BICUBIC)
            if draw.random() < 0.5:
                out = ImageOps.mirror(out)
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                out = enhance(out).enhance(draw.uniform(0.6, 1.4))
            pixels = np.asarray(out.convert("HSV")).copy()
            pixels[..., 0] += np.uint8(round(draw.uniform(-0.1, 0.1) * 256) % 256)
            Image.fromarray(pixels, "HSV").convert("RGB")

    return compare(f"augmentation of {count} photographs vs. plain Pillow", whole, plain, 1.0, 5 * rounds)


def short_attention_in_bfloat16(rounds: int, rows: int = 128, tokens: int = 16, width: int = 192) -> Row:
    """Forward and backward pass of self-attention in a small v2 step, compared with torch's choice of kernel."""
    attention = SelfAttention(width, 6)
    x = torch.randn(rows, tokens, width, requires_grad=True)

    def chosen() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            attention(x).sum().backward()

    def fused() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            parts = attention.to_queries_keys_values(x).chunk(3, dim=-1)
            queries, keys, values = (part.unflatten(-1, (6, -1)).transpose(1, 2) for part in parts)
            attended = F.scaled_dot_product_attention(queries, keys, values)
            attention.to_output(attended.transpose(1, 2).flatten(2)).sum().backward()

    return compare(f"attention, {rows} x {tokens} in bfloat16, vs. torch's choice", chosen, fused, 0.8, 10 * rounds)


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(2)
    rounds = 2 if options.quick else 7
    text, *_ = step_against_transformers("text", rounds)
    images, step, model = step_against_transformers("image", rounds)
    rows = [text, images, share_of_machine(step, rounds), v2_against_v1(step, rounds)]
    rows += [
        averaging_against_loop(model, rounds),
        short_attention_in_bfloat16(rounds),
        augmentation_against_plain_pillow(rounds),
    ]
    report(rows, options.json)


if __name__ == "__main__":
    main()
