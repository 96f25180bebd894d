"""The settings in the ``config.json`` of a saved Flamingo, and its model card."""

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


def model_card(trained: int, language: SavedTower, vision: SavedTower, tuned: TuneConfig) -> str:
    """The text of the model card, in the Hub's form.

    Args:
        trained: number of trained parameters.
        language, vision: the towers.
        tuned: how the towers were trained.
    """
    also = {
        "frozen": "",
        "lora": "; its low-rank updates are in this folder",
        "full": "; its tuned weights are in this folder",
    }
    return (
        "---\nlibrary_name: vislang\npipeline_tag: image-text-to-text\n---\n\n"
        "# A Flamingo bridge\n\n"
        f"{trained:,} trained parameters, and two pretrained towers, which are not in this folder:\n\n"
        f"* language model `{language.name}`, SHA-256 of its weights `{language.fingerprint}`"
        f"{also[tuned.language_model]}\n"
        f"* vision tower `{vision.name}` at {vision.image_size} px, SHA-256 of its weights `{vision.fingerprint}`"
        f"{also[tuned.vision_tower]}\n\n"
        "```python\nimport vislang\n\nmodel = vislang.load(FOLDER)\n"
        'model.ask(vislang.Image("photo.png"), "what is it?")\n```\n'
    )
