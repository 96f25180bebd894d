"""Tiny random data2vec models of transformers, and inputs for them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

SHAPE = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
TEXT = {"vocab_size": 50, "max_position_embeddings": 22}
IMAGE = {"image_size": 24, "patch_size": 8}
SPEECH = {
    "conv_dim": (8, 8, 12),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "conv_pos_kernel_size": 5,
    "num_conv_pos_embedding_groups": 4,
}
CONFIGS = {
    "text": (transformers.Data2VecTextConfig, TEXT),
    "image": (transformers.Data2VecVisionConfig, IMAGE),
    "speech": (transformers.Data2VecAudioConfig, SPEECH),
}


def configuration(modality: str, **change: Any) -> Any:
    kind, values = CONFIGS[modality]
    return kind(**{**SHAPE, **values, **change})


def saved(architecture: str, config: Any, folder: Path) -> Any:
    """A model with every weight far from its initial value, written to a folder."""
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def sample(modality: str, config: Any = None) -> tuple[Tensor, Tensor | None]:
    """A batch, and True where it is padding."""
    if modality == "image":
        return torch.randn(2, 3 if config is None else config.num_channels, 24, 24), None
    if modality == "text":
        tokens = torch.randint(5, 50, (3, 12))
        padding = torch.zeros(3, 12, dtype=torch.bool)
        padding[1, 8:] = padding[2, 3:] = True
        tokens[padding] = 1 if config is None else config.pad_token_id
        return tokens, padding
    waves = torch.randn(3, 600)
    padding = torch.zeros(3, 600, dtype=torch.bool)
    padding[1, 400:] = padding[2, 450:] = True
    waves[padding] = 0
    return waves, padding


@torch.no_grad()
def outputs(model: Any, values: Tensor, padding: Tensor | None) -> Tensor:
    """Logits of a model of transformers, or the last hidden state (of images, without the class token)."""
    found = model(values) if padding is None else model(values, attention_mask=(~padding).long())
    if "start_logits" in found:
        return torch.stack([found.start_logits, found.end_logits], dim=-1)
    if "logits" in found:
        return found.logits
    return found.last_hidden_state[:, 1:] if padding is None else found.last_hidden_state


def gap(wanted: Tensor, got: Tensor, padding: Tensor | None = None) -> float:
    """The largest difference at real tokens."""
    assert wanted.shape == got.shape
    difference = (wanted - got).abs()
    return difference.max().item() if padding is None else difference[~padding].max().item()


def forget_hash(folder: Path) -> None:
    """Remove the hash of the weights from a model's config, so that it opens with changed weights."""
    config = json.loads((folder / "config.json").read_text())
    del config["weights_sha256"]
    (folder / "config.json").write_text(json.dumps(config))
