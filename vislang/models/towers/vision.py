"""Frozen image encoders: pixels in, a grid of features out; opened by folder, packaged name or Hub id."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel
from transformers.initialization import no_init_weights

from vislang.models.base import fingerprint
from vislang.models.loading import is_saved_model, load
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, PACKAGED, TowerError, check_complete, not_found
from vislang.models.towers.quiet import quiet_transformers
from vislang.models.towers.shapes import config_of
from vislang.nn.fake import FakeFloats
from vislang.nn.linear import with_fast_linears
from vislang.nn.quantized import quantize_linears

UNUSED = re.compile(r"pooler|head|mask_token")
"""Parts of image encoders that features do not depend on."""


class VisionTower(nn.Module):
    """A frozen image encoder: pixels in, a grid of features out.

    Attributes:
        name: the folder, packaged name or Hub id that it was opened by.
        fingerprint: SHA-256 over its weights.
        image_size: side of the square that images are resized to, in pixels.
        width: width of a feature.
        classes: number of classes that :meth:`classify` distinguishes; 0 for a tower that has none.
        quantized: whether its linear maps are kept in 8 bits.
    """

    name: str
    fingerprint: str
    image_size: int
    width: int
    classes: int = 0
    quantized: bool = False

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """The image as pixels, resized and normalised as in the tower's training."""
        raise NotImplementedError

    def forward(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images positions features_width"]:
        """Features of each image, row by row from the top left, without global tokens."""
        raise NotImplementedError

    def classify(
        self, features: Float[Tensor, "images positions features_width"]
    ) -> Float[Tensor, "images positions classes"]:
        """The distribution over classes by the features of each position."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> VisionTower:
        """Stay in evaluation mode: a frozen tower's statistics do not move."""
        del mode
        return super().train(False)


@runtime_checkable
class GivesVisionTower(Protocol):
    """A saved model of vislang whose image encoder can serve other models as a frozen tower."""

    def vision_tower(self, name: str, image_size: int | None = None) -> VisionTower:
        """The tower.

        Args:
            name: the folder that the model was opened from.
            image_size: side of the images in pixels; None takes the model's own.

        Raises:
            TowerError: the model has no image encoder, or one for another size.
        """
        ...


class EfficientNetLite0(VisionTower):
    """EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excitation), trained on ImageNet.

    Features are the last convolution's: 1,280 wide, one for each 32 x 32 pixels. Input is (pixel - 127) / 128.

    Args:
        weights: path of the state dict.
        image_size: side of the input in pixels, a multiple of 32.
        quantize: keep its last layer in 8 bits; all others are convolutions.
    """

    def __init__(self, weights: Path, image_size: int = 224, quantize: bool = False):
        super().__init__()
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError:
            raise TowerError(
                f"vision tower {EFFICIENTNET_LITE0!r}: its weights are here, its code is not. "
                "Run: pip install 'vislang[demo]'"
            ) from None
        if image_size % 32 or image_size <= 0:
            raise TowerError(f"image_size {image_size}: {EFFICIENTNET_LITE0} takes a multiple of 32.")
        self.name = EFFICIENTNET_LITE0
        self.image_size = image_size
        self.width = 1280
        self.classes = 1000
        self.network = EfficientNet.from_name(EFFICIENTNET_LITE0, image_size=image_size)
        self.network.load_state_dict(torch.load(weights, weights_only=True))
        self.fingerprint = fingerprint(self.network.state_dict())
        self.quantized = quantize
        if quantize:
            quantize_linears(self.network)
        self.requires_grad_(False).eval()
        self.network.to(memory_format=torch.channels_last)

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """Resize to a square and scale to about -1 to 1."""
        side = (self.image_size, self.image_size)
        resized = image.resize(side, Pillow.Resampling.BICUBIC)
        pixels = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
        return (pixels.view(*side, 3).permute(2, 0, 1).float() - 127) / 128

    @torch.no_grad()
    def forward(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images positions features_width"]:
        """Features of each image, row by row from the top left."""
        features = self.network.extract_features(pixels.contiguous(memory_format=torch.channels_last))
        return features.flatten(2).transpose(1, 2).contiguous()

    @torch.no_grad()
    def classify(
        self, features: Float[Tensor, "images positions features_width"]
    ) -> Float[Tensor, "images positions classes"]:
        """The distribution over ImageNet's classes: the last layer, trained on means, applied to each position."""
        return self.network._fc(features).softmax(dim=-1)


class TransformersVision(VisionTower):
    """Any image encoder of transformers that gives a grid of features: ViT, CLIP, SigLIP, DINOv2, ResNet, ...

    Args:
        name: of the tower.
        model: of transformers; of a contrastive pair its image encoder is used.
        processor: the model's preprocessing; None where no image is read.
        marks: SHA-256 over its weights.
        image_size: side of the input in pixels; None takes the model's own.
        quantize: keep its linear maps in 8 bits.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        processor: Callable[..., Any] | None,
        marks: str,
        image_size: int | None = None,
        quantize: bool = False,
    ):
        super().__init__()
        # Contrastive models come as a pair, of which the image encoder is used.
        self.network = getattr(model, "vision_model", model)
        self.processor = processor
        self.name, self.fingerprint = name, marks
        self.quantized = quantize
        if quantize:
            quantize_linears(self.network)
        # In a list, since a second module with the same parameters would be saved twice.
        self._twin = [with_fast_linears(self.network)]
        self.image_size = image_size or self.network.config.image_size
        self.requires_grad_(False).eval()
        side = self.image_size
        self.width = self(torch.zeros(1, 3, side, side)).shape[-1]

    @classmethod
    def open(
        cls, name: str, folder: str, image_size: int | None = None, quantize: bool = False
    ) -> TransformersVision:
        """Open the encoder of a folder or a Hub id.

        Raises:
            TowerError: some of its weights are missing.
        """
        with quiet_transformers():
            model, loading = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        missing = set(loading["missing_keys"])
        # Weights that the folder lacks were drawn at random. Features do not depend on poolers, heads and mask tokens.
        side = getattr(model, "vision_model", model)
        of_images = set(side.state_dict(prefix="" if side is model else "vision_model."))
        needed = [key for key in missing if key in of_images and not UNUSED.search(key)]
        check_complete(f"vision tower {name!r}", needed)
        state = model.state_dict()
        marks = fingerprint({key: state[key] for key in state if key not in missing})
        return cls(name, model, processor, marks, image_size, quantize)

    @property
    def depth(self) -> int:
        """Number of its layers."""
        return self.network.config.num_hidden_layers

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """Resize the whole image to a square, without cropping, and normalise it as in the model's training."""
        side = (self.image_size, self.image_size)
        resized = image.resize(side, Pillow.Resampling.BICUBIC)
        assert self.processor is not None
        processed = self.processor(resized, do_resize=False, do_center_crop=False, return_tensors="pt")
        return processed["pixel_values"][0]

    @torch.no_grad()
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


def load_vision_tower(name: str, image_size: int | None = None, quantize: bool = False) -> VisionTower:
    """Open a frozen image encoder by folder, packaged name or Hub id.

    Args:
        name: a folder in transformers' convention, that of a trained dual encoder, ``efficientnet-lite0``, or a Hub id.
        image_size: side of the square that images are resized to; None takes the tower's own.
        quantize: keep its linear maps in 8 bits; convolutions stay as they are.

    Raises:
        TowerError: it was found nowhere, or is no image encoder.
    """
    if name == EFFICIENTNET_LITE0:
        weights = PACKAGED[name].find()
        if weights is None:
            raise TowerError(f"vision tower {name!r}: not installed. Run: {PACKAGED[name].install}")
        return EfficientNetLite0(weights, image_size or 224, quantize)
    if is_saved_model(name):
        # Such a model is small and is not quantized.
        model = load(name)
        if not isinstance(model, GivesVisionTower):
            raise TowerError(
                f"vision tower {name!r}: is a {type(model).__name__}, which has no image encoder for other models."
            )
        return model.vision_tower(name, image_size)
    try:
        return TransformersVision.open(name, name, image_size, quantize)
    except TowerError:
        raise
    except (OSError, ValueError) as error:
        raise not_found("vision tower", name, error) from error


def outline_vision_tower(
    name: str,
    fakes: FakeFloats,
    reads: bool,
    image_size: int | None = None,
    quantize: bool = False,
    layers: int | None = None,
) -> VisionTower:
    """The same tower for its shape: an encoder of transformers by its configuration alone, with fake weights. Other
    towers are small, and are opened.

    Args:
        name, image_size, quantize: see :func:`load_vision_tower`.
        fakes: an active mode.
        reads: whether it reads images. Otherwise its preprocessing need not be here.
        layers: build so many layers of an encoder of transformers; None builds all.

    Raises:
        TowerError: it was found nowhere, or is no image encoder.
    """
    if name == EFFICIENTNET_LITE0 or is_saved_model(name):
        return load_vision_tower(name, image_size, quantize)
    try:
        config = config_of(name)
        if layers is not None:
            config.num_hidden_layers = layers
        with quiet_transformers():
            processor = AutoImageProcessor.from_pretrained(name, backend="pil") if reads else None
        with fakes.building(), no_init_weights():
            model = AutoModel.from_config(config, dtype=torch.float32)
            return TransformersVision(name, model, processor, "", image_size, quantize)
    except (OSError, ValueError) as error:
        raise not_found("vision tower", name, error) from error
