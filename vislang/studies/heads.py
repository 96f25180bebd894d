"""Which layers of a language model contain induction heads, on which learning from examples in the prompt relies.

    python -m vislang.studies.heads --out docs/results/flamingo-in-context

The model reads a sequence of random tokens twice in a row. An induction head (Olsson et al. 2022) attends from a token
of the second copy to the token that followed it in the first. It relies on heads in lower layers that attend to the
previous token. For each layer, the strongest head of each kind is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from vislang.metrics.figure import SCHEMA
from vislang.models.towers.language import load_language_tower
from vislang.models.towers.packaged import SMOLLM2
from vislang.runs.folder import write_json

ROWS, LENGTH, SEED = 4, 40, 0
"""Number of sequences, their length in tokens before they are repeated, and the seed of their tokens."""

SHOWN = 0.2
"""A layer is listed if its strongest head gives at least this share of its attention."""


@torch.inference_mode()
def strongest(lm: PreTrainedModel) -> list[dict[str, Any]]:
    """For each layer, the largest mean share of attention of a head to the previous token, and to the token to be
    repeated.

    Args:
        lm: a causal language model of transformers; it is set to eager attention, which returns attention weights.
    """
    generator = torch.Generator().manual_seed(SEED)
    once = torch.randint(lm.config.vocab_size, (ROWS, LENGTH), generator=generator)
    lm.set_attn_implementation("eager")
    layers = lm(input_ids=torch.cat([once, once], dim=1), output_attentions=True).attentions
    second = torch.arange(LENGTH, 2 * LENGTH - 1)
    return [
        {
            "layer": number,
            "previous_token": _mean(weights, second, second - 1),
            "induction": _mean(weights, second, second - LENGTH + 1),
        }
        for number, weights in enumerate(layers)
    ]


def _mean(weights: Float[Tensor, "rows heads queries keys"], queries: Tensor, keys: Tensor) -> float:
    """The mean attention from ``queries`` to ``keys``, of the head with the largest."""
    return weights[:, :, queries, keys].mean(dim=(0, 2)).max().item()


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of the layers with strong heads."""
    lines = ["| layer | attention to the previous token | attention to the token to be repeated |", "|---|---|---|"]
    for row in rows:
        if max(row["previous_token"], row["induction"]) >= SHOWN:
            lines.append(f"| {row['layer']} | {row['previous_token']:.2f} | {row['induction']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--language-model", default=SMOLLM2, help="folder, packaged name or Hub id of the model")
    options = parser.parse_args()
    found = strongest(load_language_tower(options.language_model).lm.lm)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "heads.json", {"schema": SCHEMA, "language_model": options.language_model, "rows": found})
    print(markdown(found), end="")
