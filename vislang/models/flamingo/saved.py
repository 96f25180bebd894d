"""The settings in the ``config.json`` of a saved Flamingo."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vislang.models.flamingo.collate import CollateConfig
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.towers.packaged import TowerError
from vislang.models.towers.tuning import TuneConfig
from vislang.prompt import Prompts


@dataclass(frozen=True)
class SavedTower:
    """A tower in the config of a saved bridge, as it was before any tuning."""

    name: str
    fingerprint: str
    image_size: int | None = None

    def check(self, kind: str, name: str, found: str) -> None:
        """Compare the recorded hash with that of the opened tower.

        Raises:
            TowerError: they differ.
        """
        if found != self.fingerprint:
            raise TowerError(
                f"{kind} {name!r} is not the one that this bridge was trained with: its weights have the hash "
                f"{found[:16]}..., not {self.fingerprint[:16]}.... Restore the original weights, or train again."
            )


@dataclass(frozen=True)
class SavedFlamingo:
    """The settings in a saved model's config.json; see :meth:`vislang.models.flamingo.model.Flamingo.save`."""

    bridge: FlamingoConfig
    prompts: Prompts
    collate: CollateConfig
    dtype: Literal["float32", "bfloat16"]
    quantize: bool
    language_model: SavedTower
    vision_tower: SavedTower
    origin: dict[str, Any] | None = None
    tune: TuneConfig = field(default_factory=TuneConfig)


def portable(name: str) -> str:
    """The name of a tower, with local folders as absolute paths."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
