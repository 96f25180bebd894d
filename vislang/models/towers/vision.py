"""Image encoders: pixels in, a grid of features out."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel, PreTrainedModel
from transformers.initialization import no_init_weights

from vislang.errors import UserError
from vislang.models.base import fingerprint
from vislang.models.loading import is_saved_model, load
from vislang.models.towers.fingerprints import fingerprint_of_files
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, PACKAGED, TowerError, check_complete, not_found
from vislang.models.towers.quiet import quiet_transformers
from vislang.models.towers.shapes import config_of
from vislang.models.towers.stand_in import with_recomputed_layers
from vislang.models.towers.tuning import LoraConfig, Tuning, set_update_dropout, tune, updates_of
from vislang.nn.fake import FakeFloats
from vislang.nn.linear import with_fast_linears
from vislang.nn.quantized import quantize_linears

UNUSED = re.compile(r"pooler|head|mask_token")
"""Parts of image encoders that the features do not depend on."""


class VisionTower(nn.Module, ABC):
    """An image encoder: pixels in, a grid of features out. It is frozen unless it is tuned.

    Attributes:
        name: the folder, packaged name or Hub id that it was opened by.
        fingerprint: SHA-256 of its weights, before tuning.
        image_size: side of the square that images are resized to, in pixels.
        width: width of a feature.
        classes: number of classes of :meth:`classify`; 0 without classes.
        quantized: whether its linear layers are kept in 8 bits.
    """

    name: str
    fingerprint: str
    image_size: int
    width: int
    classes: int = 0
    quantized: bool = False

    @abstractmethod
    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """The image as pixels, resized and normalised as in the tower's training."""

    @abstractmethod
    def forward(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images positions features_width"]:
        """Features of each image, row by row from the top left, without global tokens."""

    def classify(
        self, features: Float[Tensor, "images positions features_width"]
    ) -> Float[Tensor, "images positions classes"]:
        """The distribution over :attr:`classes` at each position; empty where there are none."""
        return features[..., :0]

    @property
    def trains(self) -> bool:
        """Whether any parameter is trained, so that the features of an image change from step to step."""
        return any(parameter.requires_grad for parameter in self.parameters())

    @abstractmethod
    def recompute_activations(self) -> None:
        """From now on, recompute the inner activations of its layers in the backward pass."""

    def train(self, mode: bool = True) -> VisionTower:
        """Stay in evaluation mode: the tower's statistics do not change, and it has no dropout except that of low-rank
        updates."""
        super().train(False)
        set_update_dropout(self, mode)
        return self


@runtime_checkable
class GivesVisionTower(Protocol):
    """A saved model of vislang whose image encoder other models can use as a frozen tower."""

    def vision_tower(self, name: str, image_size: int | None = None) -> VisionTower:
        """The tower.

        Args:
            name: the folder that the model was opened from.
            image_size: side of the images in pixels; None takes the model's.

        Raises:
            TowerError: the model has no image encoder, or one for another image size.
        """
        ...


class EfficientNetLite0(VisionTower):
    """EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation), trained on ImageNet.

    Its features are the outputs of the last convolution: 1,280 wide, one for each 32 x 32 pixels. Input is (pixel -
        127) / 128.

    Args:
        weights: path of the state dict.
        image_size: side of the input in pixels, a multiple of 32.
        quantize: keep its last layer in 8 bits; the other layers are convolutions.
        tuning: how it is trained; low-rank updates are not possible.
    """

    def __init__(self, weights: Path, image_size: int = 224, quantize: bool = False, tuning: Tuning = "frozen"):
        super().__init__()
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError:
            raise TowerError(
                f"vision tower {EFFICIENTNET_LITE0!r}: the package with its code is missing. "
                "Run: pip install 'vislang[demo]'"
            ) from None
        if image_size % 32 or image_size <= 0:
            raise TowerError(f"image_size is {image_size}; for {EFFICIENTNET_LITE0} it must be a multiple of 32.")
        self.name = EFFICIENTNET_LITE0
        self.image_size = image_size
        self.width = 1280
        self.classes = 1000
        self.network = EfficientNet.from_name(EFFICIENTNET_LITE0, image_size=image_size)
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.fingerprint = fingerprint(self.network.state_dict())
        # The features do not depend on the classifier.
        tune(self.network, tuning, LoraConfig(), f"vision tower {self.name!r}", spared=[self.network._fc])
        self.quantized = quantize
        if quantize:
            quantize_linears(self.network)
        self.network.eval().to(memory_format=torch.channels_last)
        # In a list, since a second module with the same parameters would be saved twice.
        self._twin = [self.network]

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """Resize to a square and scale to about -1 to 1."""
        side = (self.image_size, self.image_size)
        resized = image.resize(side, Pillow.Resampling.BICUBIC)
        pixels = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
        return (pixels.view(*side, 3).permute(2, 0, 1).float() - 127) / 128

    def recompute_activations(self) -> None:
        """See :meth:`VisionTower.recompute_activations`."""
        self._twin = [with_recomputed_layers(self.network)]

    def forward(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images positions features_width"]:
        """Features of each image, row by row from the top left."""
        features = self._twin[0].extract_features(pixels.contiguous(memory_format=torch.channels_last))
        return features.flatten(2).transpose(1, 2).contiguous()

    @torch.no_grad()
    def classify(
        self, features: Float[Tensor, "images positions features_width"]
    ) -> Float[Tensor, "images positions classes"]:
        """The distribution over ImageNet's classes: the classifier, which was trained on means, applied to each
        position."""
        return self.network._fc(features).softmax(dim=-1)


class TransformersVision(VisionTower):
    """Any image encoder of transformers that gives a grid of features: ViT, CLIP, SigLIP, DINOv2, ResNet, ...

    Args:
        name: name of the tower.
        model: a model of transformers. Of contrastive models such as CLIP, the image encoder is used.
        processor: the model's preprocessing; None if it reads no images.
        marks: SHA-256 of its weights.
        image_size: side of the input in pixels; None takes the model's default.
        quantize: keep its linear layers, except for low-rank updates, in 8 bits.
        tuning: how it is trained; see :class:`~vislang.models.towers.tuning.TuneConfig`.
        lora: shape of the low-rank updates, for ``tuning="lora"``.

    Raises:
        TowerError: it reads no images of this size.
        UserError: it cannot be trained in this way.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        processor: Callable[..., Any] | None,
        marks: str,
        image_size: int | None = None,
        quantize: bool = False,
        tuning: Tuning = "frozen",
        lora: LoraConfig | None = None,
    ):
        super().__init__()
        self.network = _image_encoder(model)
        self.processor = processor
        self.name, self.fingerprint = name, marks
        unused = [part for path, part in self.network.named_modules() if UNUSED.search(path)]
        tune(self.network, tuning, lora or LoraConfig(), f"vision tower {name!r}", spared=unused)
        self.quantized = quantize
        if quantize:
            updates = set(updates_of(self.network))
            quantize_linears(self.network, lambda linear: linear in updates)
        # In a list, since a second module with the same parameters would be saved twice.
        self._twin = [with_fast_linears(self.network)]
        self.image_size = image_size or self.network.config.image_size
        self.eval()
        side = self.image_size
        try:
            with torch.no_grad():
                self.width = self(torch.zeros(1, 3, side, side)).shape[-1]
        except (RuntimeError, ValueError) as error:
            raise TowerError(
                f"image_size {side}: vision tower {name!r} reads no such images ({' '.join(str(error).split())}). "
                "Leave image_size out to take the tower's own."
            ) from error

    @classmethod
    def open(
        cls,
        name: str,
        image_size: int | None = None,
        quantize: bool = False,
        tuning: Tuning = "frozen",
        lora: LoraConfig | None = None,
    ) -> TransformersVision:
        """Open a folder in transformers' format, or a Hub id.

        Raises:
            TowerError: weights are missing, or it reads no images of this size.
            UserError: it cannot be trained in this way.
        """
        with quiet_transformers():
            model, loading = AutoModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
            processor = AutoImageProcessor.from_pretrained(name, backend="pil")
        missing = set(loading["missing_keys"])
        # transformers initialises missing weights at random. Features do not depend on poolers, heads and mask tokens.
        encoder = _image_encoder(model)
        image_side = set(encoder.state_dict(prefix="" if encoder is model else "vision_model."))
        needed = [key for key in loading["missing_keys"] if key in image_side and not UNUSED.search(key)]
        check_complete(f"vision tower {name!r}", needed)
        state = model.state_dict()
        marks = fingerprint_of_files(name, {key: state[key] for key in state if key not in missing})
        return cls(name, model, processor, marks, image_size, quantize, tuning, lora)

    @property
    def depth(self) -> int:
        """The number of its layers."""
        return self.network.config.num_hidden_layers

    def recompute_activations(self) -> None:
        """See :meth:`VisionTower.recompute_activations`."""
        self._twin = [with_recomputed_layers(self._twin[0])]

    def train(self, mode: bool = True) -> TransformersVision:
        """See :meth:`VisionTower.train`."""
        super().train(mode)
        set_update_dropout(self._twin[0], mode)
        return self

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """Resize the whole image to a square, without cropping, and normalise it as in the model's training."""
        side = (self.image_size, self.image_size)
        resized = image.resize(side, Pillow.Resampling.BICUBIC)
        assert self.processor is not None
        processed = self.processor(resized, do_resize=False, do_center_crop=False, return_tensors="pt")
        return processed["pixel_values"][0]

    def forward(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images positions features_width"]:
        """Features of each image, row by row from the top left, without class and register tokens."""
        features = self._twin[0](pixel_values=pixels).last_hidden_state
        if features.ndim == 4:
            return features.flatten(2).transpose(1, 2).contiguous()
        patch = getattr(self.network.config, "patch_size", None)
        if isinstance(patch, int):
            positions = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
            features = features[:, features.shape[1] - positions :]
        return features


def load_vision_tower(
    name: str,
    image_size: int | None = None,
    quantize: bool = False,
    tuning: Tuning = "frozen",
    lora: LoraConfig | None = None,
) -> VisionTower:
    """Open an image encoder by folder, packaged name or Hub id.

    Args:
        name: a folder in transformers' format, the folder of a trained dual encoder or data2vec model,
            ``efficientnet-lite0``, or a Hub id.
        image_size: side of the square that images are resized to, in pixels; None takes the tower's default.
        quantize: keep its linear layers in 8 bits; convolutions and low-rank updates are not quantized.
        tuning: how it is trained; see :class:`~vislang.models.towers.tuning.TuneConfig`.
        lora: shape of the low-rank updates, for ``tuning="lora"``.

    Raises:
        TowerError: it was not found, or is not an image encoder.
        UserError: it cannot be trained in this way.
    """
    if name == EFFICIENTNET_LITE0:
        weights = PACKAGED[name].find()
        if weights is None:
            raise TowerError(f"vision tower {name!r}: not installed. Run: {PACKAGED[name].install}")
        return EfficientNetLite0(weights, image_size or 224, quantize, tuning)
    if is_saved_model(name):
        # Saved models of vislang are small and are not quantized.
        model = load(name)
        if not isinstance(model, GivesVisionTower):
            raise TowerError(
                f"vision tower {name!r}: a {type(model).__name__} has no image encoder that other models can use."
            )
        tower = model.vision_tower(name, image_size)
        tune(tower, tuning, lora or LoraConfig(), f"vision tower {name!r}")
        return tower
    try:
        return TransformersVision.open(name, image_size, quantize, tuning, lora)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise not_found("vision tower", name, error) from error


def outline_vision_tower(
    name: str,
    fakes: FakeFloats,
    reads: bool,
    image_size: int | None = None,
    quantize: bool = False,
    tuning: Tuning = "frozen",
    lora: LoraConfig | None = None,
    layers: int | None = None,
) -> VisionTower:
    """The same tower without its weights: an encoder of transformers is built from its configuration alone, with fake
    weights. Other towers are small, and are opened.

    Args:
        name, image_size, quantize, tuning, lora: see :func:`load_vision_tower`.
        fakes: an active mode.
        reads: whether it reads images. Otherwise its preprocessing is not opened.
        layers: number of layers of an encoder of transformers; None builds all layers.

    Raises:
        TowerError: it was not found, or is not an image encoder.
        UserError: it cannot be trained in this way.
    """
    if name == EFFICIENTNET_LITE0 or is_saved_model(name):
        return load_vision_tower(name, image_size, quantize, tuning, lora)
    try:
        config = config_of(name)
        if layers is not None:
            config.num_hidden_layers = layers
        with quiet_transformers():
            processor = AutoImageProcessor.from_pretrained(name, backend="pil") if reads else None
        with fakes.building(), no_init_weights():
            model = AutoModel.from_config(config, dtype=torch.float32)
        return TransformersVision(name, model, processor, "", image_size, quantize, tuning, lora)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise not_found("vision tower", name, error) from error


def _image_encoder(model: PreTrainedModel) -> PreTrainedModel:
    return getattr(model, "vision_model", model)
