"""Image encoders: pixels in, a grid of features out; opened by folder, packaged name or Hub id."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel

from vislang.errors import UserError
from vislang.models.base import fingerprint
from vislang.models.loading import is_saved_model, load
from vislang.models.towers.packaged import EFFICIENTNET_LITE0, PACKAGED, TowerError, check_complete, not_found
from vislang.models.towers.quiet import quiet_transformers
from vislang.models.towers.stand_in import with_recomputed_layers
from vislang.models.towers.tuning import LoraConfig, Tuned, set_update_dropout, tune, updates_of
from vislang.nn.linear import with_fast_linears
from vislang.nn.quantized import quantize_linears

UNUSED = re.compile(r"pooler|head|mask_token")
"""Parts of image encoders that features do not depend on."""


class VisionTower(nn.Module):
    """An image encoder: pixels in, a grid of features out. It is frozen, unless it is tuned.

    Attributes:
        name: the folder, packaged name or Hub id that it was opened by.
        fingerprint: SHA-256 over its weights, before any tuning.
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

    @property
    def trains(self) -> bool:
        """Whether any of its parameters trains: the features of an image may then change from step to step."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def recompute_activations(self) -> None:
        """From now on compute what is inside its layers again in the backward pass, rather than keep it."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> VisionTower:
        """Stay in evaluation mode, with its statistics as they are and without dropout, but for low-rank updates'."""
        super().train(False)
        set_update_dropout(self, mode)
        return self


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
        how: what of it trains; there is nothing for low-rank updates.
    """

    def __init__(self, weights: Path, image_size: int = 224, quantize: bool = False, how: Tuned = "frozen"):
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
        # The classifier has no part in the features.
        tune(self.network, how, LoraConfig(), f"vision tower {self.name!r}", spared=[self.network._fc])
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
        """The distribution over ImageNet's classes: the last layer, trained on means, applied to each position."""
        return self.network._fc(features).softmax(dim=-1)


class TransformersVision(VisionTower):
    """Any image encoder of transformers that gives a grid of features: ViT, CLIP, SigLIP, DINOv2, ResNet, ...

    Args:
        name: of the tower.
        folder: a folder in transformers' convention, or a Hub id.
        image_size: side of the input in pixels; None takes the model's own.
        quantize: keep its linear maps in 8 bits, all but low-rank updates.
        how: what of it trains.
        lora: shape of the low-rank updates, where ``how`` asks for them.
    """

    def __init__(
        self,
        name: str,
        folder: str,
        image_size: int | None = None,
        quantize: bool = False,
        how: Tuned = "frozen",
        lora: LoraConfig | None = None,
    ):
        super().__init__()
        with quiet_transformers():
            model, loading = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
            self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        # Contrastive models come as a pair, of which the image encoder is used.
        self.network = getattr(model, "vision_model", model)
        self.name = name
        # Weights that the folder lacks were drawn at random. Features do not depend on poolers, heads and mask tokens.
        image_side = set(self.network.state_dict(prefix="" if self.network is model else "vision_model."))
        check_complete(
            f"vision tower {name!r}",
            [key for key in loading["missing_keys"] if key in image_side and not UNUSED.search(key)],
        )
        state = model.state_dict()
        self.fingerprint = fingerprint({k: state[k] for k in state if k not in set(loading["missing_keys"])})
        unused = [part for path, part in self.network.named_modules() if UNUSED.search(path)]
        tune(self.network, how, lora or LoraConfig(), f"vision tower {name!r}", spared=unused)
        self.quantized = quantize
        if quantize:
            updates = set(updates_of(self.network))
            quantize_linears(self.network, lambda linear: linear in updates)
        # In a list, since a second module with the same parameters would be saved twice.
        self._twin = [with_fast_linears(self.network)]
        self.image_size = image_size or self.network.config.image_size
        self.eval()
        side = self.image_size
        with torch.no_grad():
            self.width = self(torch.zeros(1, 3, side, side)).shape[-1]

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
    how: Tuned = "frozen",
    lora: LoraConfig | None = None,
) -> VisionTower:
    """Open an image encoder by folder, packaged name or Hub id.

    Args:
        name: a folder in transformers' convention, that of a trained dual encoder, ``efficientnet-lite0``, or a Hub id.
        image_size: side of the square that images are resized to; None takes the tower's own.
        quantize: keep its linear maps in 8 bits; convolutions and low-rank updates stay as they are.
        how: what of it trains.
        lora: shape of the low-rank updates, where ``how`` asks for them.

    Raises:
        TowerError: it was found nowhere, or is no image encoder.
        UserError: it cannot be tuned in this way.
    """
    if name == EFFICIENTNET_LITE0:
        weights = PACKAGED[name].find()
        if weights is None:
            raise TowerError(f"vision tower {name!r}: not installed. Run: {PACKAGED[name].install}")
        return EfficientNetLite0(weights, image_size or 224, quantize, how)
    if is_saved_model(name):
        # Such a model is small and is not quantized.
        model = load(name)
        if not isinstance(model, GivesVisionTower):
            raise TowerError(
                f"vision tower {name!r}: is a {type(model).__name__}, which has no image encoder for other models."
            )
        tower = model.vision_tower(name, image_size)
        tune(tower, how, lora or LoraConfig(), f"vision tower {name!r}")
        return tower
    try:
        return TransformersVision(name, name, image_size, quantize, how, lora)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise not_found("vision tower", name, error) from error
