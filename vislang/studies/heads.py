"""Which layers of a language model hold the heads that repeat: what learning from examples is built on.

    python -m vislang.studies.heads --out docs/runs/flamingo-in-context

Random tokens are read twice over. A head that repeats what followed the like of a token (an induction head, Olsson et
al. 2022) looks from a token of the second time at the one behind its first time; it is told where to look by heads
further down, which look at the token just before. Of each layer the strongest head of either kind counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from vislang.models.towers.language import load_language_tower
from vislang.models.towers.packaged import SMOLLM2

ROWS, LENGTH, SEED = 4, 40, 0
"""Rows of so many random tokens, each read twice."""

SHOWN = 0.2
"""Layers are listed whose strongest head gives a token this share of its attention."""


@torch.inference_mode()
def strongest(lm: PreTrainedModel) -> list[dict[str, Any]]:
    """Of each layer, the largest share that a head gives to the token before, and to the one to be repeated.

    Args:
        lm: a causal language model of transformers; left with eager attention, which alone tells its weights.
    """
    generator = torch.Generator().manual_seed(SEED)
    once = torch.randint(lm.config.vocab_size, (ROWS, LENGTH), generator=generator)
    lm.set_attn_implementation("eager")
    layers = lm(input_ids=torch.cat([once, once], dim=1), output_attentions=True).attentions
    again = torch.arange(LENGTH, 2 * LENGTH - 1)
    return [
        {
            "layer": number,
            "token before": _mean(weights, again, again - 1),
            "repeats": _mean(weights, again, again - LENGTH + 1),
        }
        for number, weights in enumerate(layers)
    ]


def _mean(weights: Float[Tensor, "rows heads queries keys"], queries: Tensor, keys: Tensor) -> float:
    """The mean attention from these tokens to those, of the head that gives most."""
    return weights[:, :, queries, keys].mean(dim=(0, 2)).max().item()


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The layers with strong heads."""
    lines = ["| layer | looks at the token before | looks at what is to be repeated |", "|---|---|---|"]
    for row in rows:
        if max(row["token before"], row["repeats"]) >= SHOWN:
            lines.append(f"| {row['layer']} | {row['token before']:.2f} | {row['repeats']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--language-model", default=SMOLLM2, help="folder, packaged name or Hub id")
    options = parser.parse_args()
    found = strongest(load_language_tower(options.language_model).lm.lm)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = {"language_model": options.language_model, "rows": found}
    (options.out / "heads.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(markdown(found), end="")
