"""Flamingo compared with OpenFlamingo 2.0.1, and with the plain definition of our own model.

Both have the same language model (the architecture of SmolLM2-135M), vision tower (ViT-B/32), bridge, weights, inputs,
threads and number format. That their losses and tokens are the same is checked first. The last three rows show the gain
from computing frozen parts once; their peer is :meth:`Bridge.forward`, which computes every layer and the logits for
every token.

    python benchmarks/flamingo.py [--quick] [--json FILE]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from compare import Row, arguments, compare, report
from memory import rise
from open_flamingo_peer import END, MEDIA, Both, both
from torch import Tensor

from vislang.capabilities import Decoding
from vislang.models.flamingo.bridge import Bridge
from vislang.models.flamingo.collate import IGNORED, Batch
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.decoding import generate
from vislang.models.flamingo.prefill import DecodeState, Runner
from vislang.models.towers.language import load_language_tower
from vislang.models.towers.packaged import SMOLLM2
from vislang.nn.attention import kernel_for

ROWS, IMAGES, TOKENS, ANSWER = 4, 3, 128, 12
"""Sizes of a training step: each row has three chunks of an image, a question and an answer (the target)."""

NEW = 32
"""Number of generated tokens."""


def sequences(rows: int, images: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Ids with a chunk for each image, ending in an answer and an end token; and labels for these in the peer's format,
    at the token itself."""
    ids = torch.randint(100, 40_000, (rows, tokens))
    labels = torch.full_like(ids, IGNORED)
    for start, stop in _chunks(images, tokens):
        ids[:, start] = MEDIA
        ids[:, stop - 1] = END
        labels[:, stop - ANSWER - 1 : stop] = ids[:, stop - ANSWER - 1 : stop]
    return ids, labels


def _chunks(images: int, tokens: int) -> list[tuple[int, int]]:
    edges = [tokens * number // images for number in range(images + 1)]
    return list(pairwise(edges))


def batch_of(ids: Tensor, labels: Tensor, features: Tensor) -> Batch:
    """The same batch for our bridge."""
    targets = torch.full_like(ids, IGNORED)
    targets[:, :-1] = labels[:, 1:]
    rows, images = len(ids), int((ids[0] == MEDIA).sum())
    index = torch.arange(rows * images, device=ids.device).view(rows, images)
    return Batch(ids, torch.ones_like(ids), (ids == MEDIA).cumsum(dim=-1), targets, index, 0, features[:, None])


def training(
    models: Both, cached: bool, check: bool = True, rows: int = ROWS
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The training step of each: loss, gradients, clipping and the optimizer."""
    torch.manual_seed(2)
    device = next(models.peer.parameters()).device
    ids, labels = (values.to(device) for values in sequences(rows, IMAGES, TOKENS))
    pixels = torch.randn(rows, IMAGES, 1, 3, 224, 224).to(device)
    known = models.tower.features(pixels.flatten(0, 2))
    optimizers = [
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, fused=True)
        for model in (models.ours.bridge, models.peer)
    ]

    def ours() -> Tensor:
        features = known if cached else models.tower.features(pixels.flatten(0, 2))
        loss = models.ours.losses(batch_of(ids, labels, features))["text"]
        _update(models.ours.bridge, optimizers[0], loss)
        return loss.detach()

    embedding = models.peer.lang_encoder.get_input_embeddings()  # type: ignore[operator, union-attr]
    others = torch.ones(embedding.weight.shape[0], 1, device=device)
    others[[MEDIA, END]] = 0

    def peer() -> Tensor:
        loss = models.peer(pixels, ids, torch.ones_like(ids), labels).loss

        def mask() -> None:
            # As in its trainer: only the two added embeddings are trained.
            embedding.weight.grad.mul_(1 - others)

        _update(models.peer, optimizers[1], loss, mask)
        return loss.detach()

    if check:
        torch.testing.assert_close(ours(), peer(), atol=1e-4, rtol=0)
    return ours, peer


def _update(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, mask: Callable[[], None] | None = None
) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if mask is not None:
        mask()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    optimizer.step()


def prompts(rows: int, shots: int) -> tuple[Tensor, Tensor]:
    """Ids of examples of twenty tokens and a question of twelve tokens, and their pixels."""
    ids, _ = sequences(rows, shots + 1, 20 * (shots + 1))
    return ids[:, :-8], torch.randn(rows, shots + 1, 1, 3, 224, 224)


def decoding(
    models: Both, rows: int, check: bool = True, given: tuple[Tensor, Tensor] | None = None
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Generate 32 tokens after four examples, from pixels."""
    torch.manual_seed(3)
    ids, pixels = given or prompts(rows, 4)
    labels = torch.full_like(ids, IGNORED)

    def ours() -> Tensor:
        features = models.tower.features(pixels.flatten(0, 2))
        state = models.ours.prefill(batch_of(ids, labels, features))
        return torch.tensor([text.tokens for (text,) in generate(models.ours, state, Decoding(NEW), frozenset())])

    # transformers drops a mask of ones, and the peer requires a mask; so the first column is padding.
    padded = torch.cat([torch.zeros_like(ids[:, :1]), ids], dim=1)
    mask = torch.ones_like(padded)
    mask[:, 0] = 0

    @torch.no_grad()
    def peer() -> Tensor:
        written = models.peer.generate(  # type: ignore[operator]
            pixels, padded, mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, pad_token_id=0
        )
        return written[:, padded.shape[1] :]

    assert not check or torch.equal(ours(), peer()), "ours and the peer generate different tokens"
    return ours, peer


def shared_examples(models: Both, rows: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Generate after the same four examples for all questions, as in a few-shot evaluation."""
    torch.manual_seed(5)
    ids, pixels = prompts(rows, 4)
    shots = 20 * 4
    ids[:, :shots], pixels[:, :4] = ids[:1, :shots], pixels[:1, :4]
    _, peer = decoding(models, rows, check=False, given=(ids, pixels))
    labels = torch.full_like(ids, IGNORED)

    def ours() -> Tensor:
        features = models.tower.features(pixels[:1, :4].flatten(0, 2))
        examples = models.ours.prefill(batch_of(ids[:1, :shots], labels[:1, :shots], features))
        features = models.tower.features(pixels[:, 4:].flatten(0, 2))
        state = models.ours.extend(examples, batch_of(ids[:, shots:], labels[:, shots:], features))
        return torch.tensor([text.tokens for (text,) in generate(models.ours, state, Decoding(NEW), frozenset())])

    assert torch.equal(ours(), peer()), "ours and the peer generate different tokens"  # type: ignore[arg-type]
    return ours, peer


def second_query(models: Both, rounds: int) -> Row:
    """A question after eight examples that are already prefilled, compared with the first question."""
    torch.manual_seed(4)
    ids, pixels = prompts(1, 8)
    shots = 20 * 8
    both_ids = [ids, torch.cat([ids[:, :shots], sequences(1, 1, 20)[0][:, :-8]], dim=1)]
    labels = torch.full_like(ids, IGNORED)
    five = Decoding(5)

    def prefilled() -> DecodeState:
        features = models.tower.features(pixels[:, :8].flatten(0, 2))
        return models.ours.prefill(batch_of(ids[:, :shots], labels[:, :shots], features))

    def answer(state: DecodeState, which: int) -> list:
        features = models.tower.features(pixels[:, 8:].flatten(0, 2))
        query = batch_of(both_ids[which][:, shots:], labels[:, shots:], features)
        return generate(models.ours, models.ours.extend(state, query), five, frozenset())

    times: dict[str, list[float]] = {"first": [], "second": []}
    for _ in range(rounds + 1):
        started = time.perf_counter()
        state = prefilled()
        answer(state, 0)
        between = time.perf_counter()
        answer(state, 1)
        times["first"].append(between - started)
        times["second"].append(time.perf_counter() - between)
    first, second = (statistics.median(each[1:]) for each in times.values())
    ratio = second / first
    return Row(
        "second question, same 8 shots", ratio, "second / first", "<= 0.25", ratio <= 0.25, second, first, rounds
    )


def memory() -> list[Row]:
    """The peak memory of each beyond that of the models, measured in separate processes."""
    rows = []
    for what in ("training", "decoding"):
        used = {}
        for side in ("ours", "peer"):
            command = [sys.executable, __file__, "--measure", what, side]
            used[side] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ratio = used["ours"] / used["peer"]
        name = f"peak memory, {what}: {used['ours']:.0f} of {used['peer']:.0f} MiB"
        rows.append(Row(name, ratio, "ours / peer", "<= 1.0", ratio <= 1, 0.0, 0.0, 1))
    return rows


def measure(what: str, side: str) -> None:
    """Print the increase of this process's memory in MiB while one side runs twice."""
    models = both()
    runs = training(models, cached=False, check=False) if what == "training" else decoding(models, 8, check=False)
    one = runs[0 if side == "ours" else 1]
    print(rise(lambda: (one(), one())))


def step_against_definition(name: str, dtype: torch.dtype, image_first: bool, rounds: int, at_most: float) -> Row:
    """Losses and gradients of questions about one image, compared with :meth:`Bridge.forward`."""
    language = load_language_tower(SMOLLM2, dtype)
    config = FlamingoConfig(gated_layers=[20, 23, 26], latents=8, resampler_width=256, resampler_depth=2)
    bridge = Bridge(config, language.lm, 1280, torch.randn(language.lm.width))
    batch = questions(bridge.media_token, image_first)
    runner = Runner(bridge)
    runner.keep_texts(batch, to_continue=False)
    arithmetic = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    def ours() -> None:
        with arithmetic:
            runner.losses(batch)["text"].backward()

    def plain() -> None:
        with arithmetic, kernel_for(batch.input_ids.shape[1], batch.input_ids.device, dtype):
            logits = bridge(batch).float()
            F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED).backward()

    return compare(name, ours, plain, at_most, rounds)


def questions(media_token: int, image_first: bool, rows: int = 32, question: int = 13, answer: int = 2) -> Batch:
    """A batch of questions about one image: image, question and an answer of two tokens, or question, image and
    answer."""
    tokens = torch.randint(100, 5000, (1, 1 + question + answer)).repeat(rows, 1)
    # Eight different questions, each about four images.
    tokens[:, 1] = torch.arange(rows) % 8
    column = 0 if image_first else question
    tokens = torch.cat([tokens[:, 1 : column + 1], torch.full((rows, 1), media_token), tokens[:, column + 1 :]], dim=1)
    targets = torch.full_like(tokens, IGNORED)
    targets[:, -answer:] = torch.randint(100, 5000, (rows, answer))
    media_time = torch.zeros_like(tokens)
    media_time[:, column:] = 1
    index = torch.arange(rows)[:, None]
    features = torch.randn(rows, 1, 16, 1280)
    return Batch(tokens, torch.ones_like(tokens), media_time, targets, index, column, features)


def main() -> None:
    """Print the table."""
    if "--measure" in sys.argv:
        measure(*sys.argv[sys.argv.index("--measure") + 1 :])
        return
    options = arguments(__doc__ or "")
    rounds = 2 if options.quick else 7
    models = both()
    rows = [
        compare("training step, features cached", *training(models, cached=True), 0.5, rounds),
        compare("training step, from pixels", *training(models, cached=False), 0.75, rounds),
        compare("32 tokens after 4 shots, batch 1", *decoding(models, 1), 0.5, rounds),
        compare("32 tokens after 4 shots, batch 8", *decoding(models, 8), 0.4, rounds),
        compare("the same 4 shots for a batch of 8", *shared_examples(models, 8), 0.4, rounds),
        second_query(models, rounds),
    ]
    del models
    rows += memory()
    torch.manual_seed(0)
    rows += [
        step_against_definition("question first, vs. the definition", torch.float32, False, rounds, at_most=0.4),
        step_against_definition("image first, vs. the definition", torch.float32, True, rounds, at_most=0.7),
        step_against_definition("image first, bfloat16, vs. the definition", torch.bfloat16, True, rounds, at_most=0.7),
    ]
    report(rows, options.json)


if __name__ == "__main__":
    main()
