"""What is saved by computing frozen parts once: a Flamingo's training step against its plain definition.

The peer is the definition itself, :meth:`Bridge.forward`: every layer for every token, logits everywhere. Both have
the same language model, inputs, gradients, threads and number format.

    python benchmarks/flamingo.py [--quick] [--json FILE]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from compare import Row, arguments, compare, report

from vislang.models.backbones import SMOLLM2, load_language_tower
from vislang.models.bridge import Bridge, FlamingoConfig
from vislang.models.flamingo_collate import IGNORED, Batch
from vislang.nn.attention import kernel_for

ROWS, QUESTION, ANSWER = 32, 13, 2


def batch_of(media_token: int, image_first: bool) -> Batch:
    """A batch of one-image questions: the image, its question and two tokens of answer, or question, image, answer."""
    tokens = torch.randint(100, 5000, (1, 1 + QUESTION + ANSWER)).repeat(ROWS, 1)
    # Eight different questions, each asked of four images.
    tokens[:, 1] = torch.arange(ROWS) % 8
    place = 0 if image_first else QUESTION
    tokens = torch.cat([tokens[:, 1 : place + 1], torch.full((ROWS, 1), media_token), tokens[:, place + 1 :]], dim=1)
    targets = torch.full_like(tokens, IGNORED)
    targets[:, -ANSWER:] = torch.randint(100, 5000, (ROWS, ANSWER))
    media_time = torch.zeros_like(tokens)
    media_time[:, place:] = 1
    return Batch(
        tokens,
        torch.ones_like(tokens),
        media_time,
        targets,
        torch.arange(ROWS)[:, None],
        place,
        features=torch.randn(ROWS, 1, 16, 1280),
    )


def step_against_definition(name: str, dtype: torch.dtype, image_first: bool, rounds: int, at_most: float) -> Row:
    """One row: losses and gradients, ours against :meth:`Bridge.forward`."""
    language = load_language_tower(SMOLLM2, dtype)
    config = FlamingoConfig(gated_layers=[20, 23, 26], latents=8, resampler_width=256, resampler_depth=2)
    bridge = Bridge(config, language.lm, 1280, torch.randn(language.lm.width))
    batch = batch_of(bridge.media_token, image_first)
    bridge.keep_texts(batch, to_continue=False)
    arithmetic = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    def ours() -> None:
        with arithmetic:
            bridge.losses(batch)["text"].backward()

    def plain() -> None:
        with arithmetic, kernel_for(batch.input_ids.shape[1], batch.input_ids.device, dtype):
            logits = bridge(batch).float()
            F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED).backward()

    return compare(name, ours, plain, at_most, rounds)


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    torch.manual_seed(0)
    rounds = 2 if options.quick else 7
    report(
        [
            step_against_definition("question first, float32", torch.float32, False, rounds, at_most=0.4),
            step_against_definition("image first, float32", torch.float32, True, rounds, at_most=0.7),
            step_against_definition("image first, bfloat16", torch.bfloat16, True, rounds, at_most=0.7),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
