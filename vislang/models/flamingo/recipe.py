"""A Flamingo in a recipe: its settings, and how they become a model to train, to open or to plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch

from vislang.capabilities import ModelRecipe
from vislang.models.flamingo.collate import CollateConfig
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.model import Flamingo
from vislang.models.precision import Precision, dtype_of
from vislang.models.towers.language import load_language_tower, outline_language_tower
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, SMOLLM2
from vislang.models.towers.tuning import TuneConfig
from vislang.models.towers.vision import load_vision_tower, outline_vision_tower
from vislang.nn.fake import FakeFloats
from vislang.prompt import Prompts


class Depth(NamedTuple):
    """Numbers of layers of a Flamingo; its gated blocks are before the lowest layers of the language model."""

    language: int
    gated: int
    resampler: int
    vision: int


@dataclass
class FlamingoRecipe(ModelRecipe):
    """The settings of a Flamingo in a recipe.

    Attributes:
        language_model: a folder, a packaged name or a Hub id; see :mod:`vislang.models.towers.packaged`.
        vision_tower: a folder, a packaged name, a Hub id, or the folder of a trained dual encoder or data2vec model.
        image_size: side of the square that images are resized to, in pixels; None takes the tower's default.
        dtype: number type in which language model and bridge compute; ``auto`` takes bfloat16 if the device has
            hardware for it. Trained parameters are kept and updated in float32.
        quantize: keep the linear layers of both towers in 8 bits: a quarter of the memory, slightly less accurate.
        tune: how the towers are trained; by default both are frozen, as in the paper.
        cache_features: encode each image once and keep its features on disk; otherwise encode it in every step.
        bridge: shape of the bridge.
        prompts: the templates for questions and captions.
        collate: how documents become batches.
    """

    language_model: str = SMOLLM2
    vision_tower: str = EFFICIENTNET_LITE0
    image_size: int | None = None
    dtype: Precision = "float32"
    quantize: bool = False
    tune: TuneConfig = field(default_factory=TuneConfig)
    cache_features: bool = True
    bridge: FlamingoConfig = field(default_factory=FlamingoConfig)
    prompts: Prompts = field(default_factory=Prompts)
    collate: CollateConfig = field(default_factory=CollateConfig)

    def __post_init__(self):
        if self.quantize and "full" in (self.tune.language_model, self.tune.vision_tower):
            raise ValueError("quantize keeps weights in 8 bits, and tune: full trains them. Take lora, or drop one.")

    def build(self, device: torch.device | str = "cpu") -> Flamingo:
        """An untrained Flamingo; its gates are closed.

        Raises:
            TowerError: a tower was not found.
            UserError: a tower cannot be tuned in this way.
        """
        tune, dtype = self.tune, dtype_of(self.dtype, device)
        language = load_language_tower(self.language_model, dtype, self.quantize, tune.language_model, tune.lora)
        vision = load_vision_tower(self.vision_tower, self.image_size, self.quantize, tune.vision_tower, tune.lora)
        return Flamingo(self.bridge, language, vision, self.prompts, self.collate, self.cache_features, tuned=tune)

    def outline(self, fakes: FakeFloats, reads: bool = True, depth: Depth | None = None) -> Flamingo:
        """See :class:`~vislang.capabilities.Outlines`.

        Args:
            fakes: an active mode.
            reads: whether it makes batches of examples.
            depth: numbers of layers; None builds all layers.

        Raises:
            TowerError: a tower was not found.
            UserError: a tower cannot be tuned in this way.
        """
        dtype, bridge, tune = dtype_of(self.dtype), self.bridge, self.tune
        if depth is not None:
            gated = list(range(depth.gated))
            bridge = replace(bridge, gated_layers=gated, scales=[1.0] * depth.gated, resampler_depth=depth.resampler)
        language = outline_language_tower(
            *(self.language_model, fakes, reads, dtype, self.quantize, tune.language_model, tune.lora),
            layers=depth and depth.language,
        )
        vision = outline_vision_tower(
            *(self.vision_tower, fakes, reads, self.image_size, self.quantize, tune.vision_tower, tune.lora),
            layers=depth and depth.vision,
        )
        with fakes.building():
            model = Flamingo(bridge, language, vision, self.prompts, self.collate, cache_features=False, tuned=tune)
        model.caches_features = self.cache_features and not vision.trains
        fakes.empty(model)
        return model

    def open(self, folder: Path, device: torch.device | str = "cpu") -> Flamingo:
        """A trained Flamingo."""
        return Flamingo.load(folder)
