"""ViLBERT's training steps at base size, compared with the processor's matrix rate and with the original's computation.

Batch 8, 36 regions and the whole image, 20 tokens, float32, six co-attention layers. A step is the forward and the
backward pass; the optimizer is measured in a row of its own.

    python benchmarks/vilbert.py [--quick] [--json FILE]
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from compare import Row, arguments, compare, report
from torch import Tensor

from vislang.models.vilbert.config import ViLBERTConfig, preset
from vislang.models.vilbert.heads import original_heads
from vislang.models.vilbert.model import PretrainingLabels, ViLBERT, pretraining_losses
from vislang.models.vilbert.streams import Encoded
from vislang.train.memory import keep_freed_memory

BATCH, REGIONS, TOKENS = 8, 37, 20
MASKED_WORDS, MASKED_REGIONS = 3, 5
"""Numbers in each row: 15 % of 20 and of 36."""


def without_dropout(config: ViLBERTConfig) -> ViLBERTConfig:
    """The configuration without dropout, so that both sides compute the same."""
    for stream in (config.text, config.vision):
        stream.dropout = stream.attention_dropout = 0.0
    return config


def texts(generator: torch.Generator, tokens: int = TOKENS) -> tuple[Tensor, Tensor]:
    """Ids and segments."""
    ids = torch.randint(1000, 30_000, (BATCH, tokens), generator=generator)
    return ids, torch.zeros_like(ids)


def images(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features and boxes."""
    return (
        torch.randn(BATCH, REGIONS, 2048, generator=generator),
        torch.rand(BATCH, REGIONS, 5, generator=generator),
    )


def labels(generator: torch.Generator) -> PretrainingLabels:
    """Labels for three words and five regions in each row."""
    words = torch.full((BATCH, TOKENS), -1)
    words[:, 1 : 1 + MASKED_WORDS] = torch.randint(1000, 30_000, (BATCH, MASKED_WORDS), generator=generator)
    regions = torch.zeros(BATCH, REGIONS, dtype=torch.bool)
    regions[:, 1 : 1 + MASKED_REGIONS] = True
    classes = torch.rand(BATCH, REGIONS, 1601, generator=generator).softmax(dim=-1)
    return PretrainingLabels(words, regions, classes, torch.arange(BATCH) % 2 == 0)


def encoder_operations(config: ViLBERTConfig) -> float:
    """Multiply-adds of the forward pass of both streams: products with weights, and with keys and values.

    Of a block, for each token: queries, keys, values and output (4 w^2), the feed-forward (2 w h), and two products
    with each token that is looked at (2 t w). The region embedding's input needs no gradient: its map counts for two
    passes, not three.
    """
    text, vision, width = config.text, config.vision, config.width

    def block(w: int, h: int, tokens: int) -> float:
        return tokens * (4 * w**2 + 2 * w * h + 2 * tokens * w)

    def co_attention(w: int, h: int, tokens: int, others: int) -> float:
        return tokens * (4 * w * width + 2 * w * h + 2 * others * width)

    total = text.depth * block(text.width, text.mlp_width, TOKENS)
    total += vision.depth * block(vision.width, vision.mlp_width, REGIONS)
    total += len(config.co_attention_layers) * co_attention(text.width, text.mlp_width, TOKENS, REGIONS)
    total += len(config.co_attention_layers) * co_attention(vision.width, vision.mlp_width, REGIONS, TOKENS)
    total += REGIONS * vision.feature_width * vision.width * 2 / 3
    total += text.width * width + vision.width * width
    return BATCH * total


def pretraining_operations(config: ViLBERTConfig) -> float:
    """Floating-point operations of a step: two per multiply-add; with the backward pass three times the forward
    pass."""
    text, vision = config.text, config.vision
    words = MASKED_WORDS * (text.width**2 + text.width * text.vocabulary_size)
    regions = MASKED_REGIONS * (vision.width**2 + vision.width * vision.classes)
    return 6 * (encoder_operations(config) + BATCH * (words + regions))


def answering_operations(config: ViLBERTConfig) -> float:
    """Floating-point operations of a VQA step with 3,129 answers."""
    return 6 * (encoder_operations(config) + BATCH * 2 * config.width * (config.width + 3129))


def share(name: str, step: Callable[[], object], operations: float, rounds: int, size: int = 4096) -> Row:
    """The rate of a step, relative to that of a large ``torch.matmul``, timed alternately."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    product = torch.empty(size, size)

    def multiply() -> None:
        torch.matmul(left, right, out=product)

    row = compare("", step, multiply, math.inf, rounds, warmup=1)
    rates = operations / row.ours_s, 2.0 * size**3 / row.peer_s
    print(f"{name}: {rates[0] / 1e9:.0f} GFLOP/s, torch.matmul {rates[1] / 1e9:.0f} GFLOP/s")
    value = rates[0] / rates[1]
    return Row(f"{name}, rate", value, "of matmul", ">= 0.75", value >= 0.75, row.ours_s, row.peer_s, rounds)


def losses_at_every_position(model: ViLBERT, encoded: Encoded, wanted: PretrainingLabels) -> Tensor:
    """The original's computation: words at every token and classes at every region, of which most are not used."""
    logits = model.pretraining_logits(encoded.text, encoded.vision, model.fuse(encoded))
    words = F.cross_entropy(logits.words.flatten(0, 1), wanted.words.flatten(), ignore_index=-1)
    found = logits.regions.log_softmax(dim=-1)
    apart = F.kl_div(found, wanted.region_classes, reduction="none").sum(dim=-1)
    regions = (apart * wanted.regions).sum() / wanted.regions.sum()
    aligned = F.cross_entropy(logits.alignment, (~wanted.aligned).long())
    return words + regions + aligned


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    torch.set_num_threads(2)
    # As in ``vislang train``, for both sides of each row.
    keep_freed_memory()
    rounds = 2 if options.quick else 7
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    config = without_dropout(preset("base-6"))
    model = ViLBERT(config, original_heads()).train()
    model.dropout.p = 0.0
    text, image, wanted = texts(generator), images(generator), labels(generator)
    scores = torch.rand(BATCH, 3129, generator=generator)

    def encode(ids: tuple[Tensor, Tensor] = text, padding: Tensor | None = None) -> Encoded:
        model.zero_grad(set_to_none=True)
        return model.streams(model.streams.read_text(*ids, padding), model.streams.read_regions(*image))

    def pretraining() -> float:
        loss = torch.stack(list(pretraining_losses(model, encode(), wanted).values())).sum()
        loss.backward()
        return loss.item()

    def everywhere() -> float:
        loss = losses_at_every_position(model, encode(), wanted)
        loss.backward()
        return loss.item()

    def answering() -> float:
        loss = F.binary_cross_entropy_with_logits(model.predict("answers", encode()), scores, reduction="sum") / BATCH
        loss.backward()
        return loss.item()

    both = pretraining(), everywhere()
    print(f"loss {both[0]:.5f} at masked positions, {both[1]:.5f} from logits at every position")
    assert math.isclose(*both, rel_tol=1e-5), "the losses differ"
    rows = [
        share("pretraining step", pretraining, pretraining_operations(config), rounds),
        share("VQA step", answering, answering_operations(config), rounds),
        compare("pretraining vs. logits at every position", pretraining, everywhere, 1.0, rounds, warmup=1),
    ]
    padded = F.pad(text[0], (0, 36 - TOKENS)), F.pad(text[1], (0, 36 - TOKENS))
    padding = torch.arange(36).expand(BATCH, 36) >= TOKENS

    def original_length() -> None:
        encode(padded, padding)[0].sum().backward()

    def bucketed() -> None:
        encode()[0].sum().backward()

    rows.append(compare("20 tokens vs. the same padded to 36", bucketed, original_length, 0.9, rounds, warmup=1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def whole() -> None:
        pretraining()
        optimizer.step()

    def looped() -> None:
        pretraining()
        plain.step()

    plain = torch.optim.AdamW(model.parameters(), lr=1e-5, foreach=False, fused=False)
    rows.append(compare("pretraining with fused AdamW vs. a plain loop", whole, looped, 0.95, rounds, warmup=1))
    report(rows, options.json)


if __name__ == "__main__":
    main()
