"""Frozen image encoders: pixels in, a grid of features out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel

from vislang.models.base import fingerprint
from vislang.models.loading import is_saved_model, load
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, PACKAGED, TowerError, check_complete, not_found
from vislang.models.towers.quiet import quiet_transformers
from vislang.nn.linear import with_fast_linears
from vislang.nn.quantized import quantize_linears

UNUSED = re.compile(r"pooler|head|mask_token")
"""Parts of image encoders that the features do not depend on."""


class VisionTower(nn.Module):
    """A frozen image encoder: pixels in, a grid of features out.

    Attributes:
        name: the folder, packaged name or Hub id that it was opened by.
        fingerprint: SHA-256 of its weights.
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
        """The class distribution of each position."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> VisionTower:
        """Stay in evaluation mode: the statistics of a frozen tower do not change."""
        del mode
        return super().train(False)


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
    """

    def __init__(self, weights: Path, image_size: int = 224, quantize: bool = False):
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
        """The distribution over ImageNet's classes: the classifier, which was trained on means, applied to each
        position."""
        return self.network._fc(features).softmax(dim=-1)


class TransformersVision(VisionTower):
    """Any image encoder of transformers that gives a grid of features: ViT, CLIP, SigLIP, DINOv2, ResNet, ...

    Args:
        name: name of the tower.
        folder: a folder in transformers' format, or a Hub id.
        image_size: side of the input in pixels; None takes the model's default.
        quantize: keep its linear layers in 8 bits.

    Raises:
        TowerError: weights are missing, or it reads no images of this size.
    """

    def __init__(self, name: str, folder: str, image_size: int | None = None, quantize: bool = False):
        super().__init__()
        with quiet_transformers():
            model, loading = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
            self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        # Of contrastive models such as CLIP, the image encoder is used.
        self.network = getattr(model, "vision_model", model)
        self.name = name
        # transformers initialises missing weights at random. Features do not depend on poolers, heads and mask tokens.
        image_side = set(self.network.state_dict(prefix="" if self.network is model else "vision_model."))
        check_complete(
            f"vision tower {name!r}",
            [key for key in loading["missing_keys"] if key in image_side and not UNUSED.search(key)],
        )
        state = model.state_dict()
        self.fingerprint = fingerprint({k: state[k] for k in state if k not in set(loading["missing_keys"])})
        self.quantized = quantize
        if quantize:
            quantize_linears(self.network)
        # In a list, since a second module with the same parameters would be saved twice.
        self._twin = [with_fast_linears(self.network)]
        self.image_size = image_size or self.network.config.image_size
        self.requires_grad_(False).eval()
        side = self.image_size
        try:
            self.width = self(torch.zeros(1, 3, side, side)).shape[-1]
        except (RuntimeError, ValueError) as error:
            raise TowerError(
                f"image_size {side}: vision tower {name!r} reads no such images ({' '.join(str(error).split())}). "
                "Leave image_size out to take the tower's own."
            ) from error

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """Resize the whole image to a square, without cropping, and normalise it as in the model's training."""
        side = (self.image_size, self.image_size)
        resized = image.resize(side, Pillow.Resampling.BICUBIC)
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
        name: a folder in transformers' format, the folder of a trained dual encoder, ``efficientnet-lite0``, or a Hub
            id.
        image_size: side of the square that images are resized to, in pixels; None takes the tower's default.
        quantize: keep its linear layers in 8 bits; convolutions are not quantized.

    Raises:
        TowerError: it was not found, or is not an image encoder.
    """
    if name == EFFICIENTNET_LITE0:
        weights = PACKAGED[name].find()
        if weights is None:
            raise TowerError(f"vision tower {name!r}: not installed. Run: {PACKAGED[name].install}")
        return EfficientNetLite0(weights, image_size or 224, quantize)
    if is_saved_model(name):
        # Saved models of vislang are small and are not quantized.
        model = load(name)
        if not isinstance(model, GivesVisionTower):
            raise TowerError(
                f"vision tower {name!r}: a {type(model).__name__} has no image encoder that other models can use."
            )
        return model.vision_tower(name, image_size)
    try:
        return TransformersVision(name, name, image_size, quantize)
    except TowerError:
        raise
    except (OSError, ValueError) as error:
        raise not_found("vision tower", name, error) from error
