"""A bridge converted from OpenFlamingo, with its language model: tensors in, logits out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vislang.models.base import copy_state, fingerprint, read_settings, read_weights, write_model
from vislang.models.flamingo.bridge import Bridge
from vislang.models.flamingo.collate import Batch
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.saved import SavedTower
from vislang.models.towers.causal_lm import CausalLMWithRows
from vislang.models.towers.language import LanguageTower, load_causal_lm, load_language_tower
from vislang.models.towers.packaged import TowerError
from vislang.models.towers.vision import load_vision_tower
from vislang.prompt import Prompts


@dataclass(frozen=True)
class SavedBridge:
    """The settings in a converted bridge's config.json; see :meth:`ConvertedFlamingo.save`."""

    bridge: FlamingoConfig
    features_width: int
    language_model: SavedTower
    origin: dict[str, Any] | None = None


class ConvertedFlamingo(nn.Module):
    """A converted bridge. Its language model is not saved; the config records its name and hash.

    Args:
        config: shape of the bridge.
        language_model: folder or Hub id of the language model.
        features_width: feature width of the vision tower that it was trained with.
        ids, rows: the tokens whose embeddings were trained or added, and these embeddings.
        origin: the origin of the weights, for the record.
        expected: hash of the language model; None accepts any.

    Raises:
        TowerError: the language model was not found, or has another hash.
    """

    def __init__(
        self,
        config: FlamingoConfig,
        language_model: str,
        features_width: int,
        ids: Tensor,
        rows: Float[Tensor, "tokens width"],
        origin: dict[str, Any] | None = None,
        expected: str | None = None,
    ):
        super().__init__()
        lm = load_causal_lm(language_model)
        self.language_name, self.fingerprint = language_model, fingerprint(lm.state_dict())
        if expected is not None and self.fingerprint != expected:
            raise TowerError(
                f"language model {language_model}: its weights have the hash {self.fingerprint[:12]}, and the bridge "
                f"was converted with {expected[:12]}. Give the language model that it was trained with."
            )
        self.features_width, self.origin = features_width, origin
        extended = CausalLMWithRows(lm, ids, rows)
        assert config.media_token is not None
        media = extended.embed(torch.tensor([[config.media_token]]))[0, 0]
        self.bridge = Bridge(config, extended, features_width, media)

    def forward(self, batch: Batch) -> Float[Tensor, "batch tokens types"]:
        """Logits at every position."""
        return self.bridge(batch)

    def with_towers(self, vision_tower: str, prompts: Prompts, image_size: int | None = None) -> Flamingo:
        """The same bridge with a vision tower and the language model's tokenizer: it reads Documents.

        Args:
            vision_tower: the tower that it was trained with: a folder or a Hub id.
            prompts: the templates that it was trained with.
            image_size: image size of the tower; None takes the tower's default.

        Raises:
            TowerError: the tower was not found, or its features have another width.
        """
        vision = load_vision_tower(vision_tower, image_size)
        if vision.width != self.features_width:
            raise TowerError(
                f"vision tower {vision_tower!r}: its features have the width {vision.width}, and the bridge was "
                f"trained with {self.features_width}."
            )
        tokenizer = load_language_tower(self.language_name).tokenizer
        language = LanguageTower(self.language_name, self.fingerprint, self.bridge.lm, tokenizer)
        made = Flamingo(self.bridge.config, language, vision, prompts, origin=self.origin)
        made.bridge.load_state_dict(self.bridge.state_dict())
        return made.eval()

    def state(self) -> dict[str, Tensor]:
        """The tensors of the bridge by name, without the language model's."""
        return {name: value for name, value in self.bridge.state_dict().items() if not name.startswith("lm.")}

    def save(self, folder: Path | str) -> None:
        """Write the config and the trained weights."""
        lm = self.bridge.lm
        assert isinstance(lm, CausalLMWithRows)
        settings = {
            "bridge": dataclasses.asdict(self.bridge.config),
            "features_width": self.features_width,
            "language_model": {"name": str(Path(self.language_name).resolve()), "fingerprint": self.fingerprint},
            "origin": self.origin,
        }
        write_model(folder, self, settings, {**self.state(), "row_ids": lm.row_ids, "rows": lm.rows})

    @classmethod
    def load(cls, folder: Path, language_model: str | None = None) -> ConvertedFlamingo:
        """Open a folder that :meth:`save` wrote.

        Args:
            folder: the folder.
            language_model: new location of the language model, if it has moved.

        Raises:
            TowerError: the language model was not found, or is not the one that it was converted with.
            UserError: a setting of the config is wrong, or the weights do not fit it.
        """
        saved, state = read_settings(SavedBridge, folder), read_weights(folder)
        model = cls(
            saved.bridge,
            language_model or saved.language_model.name,
            saved.features_width,
            ids=state.pop("row_ids"),
            rows=state.pop("rows"),
            origin=saved.origin,
            expected=saved.language_model.fingerprint,
        )
        copy_state(model.state(), state)
        return model.eval()
