"""Shapes of towers without their weights, for plans.

The shape of a tower is the ``config.json`` of its folder, of its package or on the Hub. Those of the presets' towers
are here, so a plan of a preset needs no network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from vislang.models.towers.quiet import quiet_transformers

KNOWN: dict[str, dict[str, Any]] = {
    "EleutherAI/pythia-1.4b": {
        "model_type": "gpt_neox",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
    },
    "ibm-granite/granite-3.1-8b-base": {
        "model_type": "granite",
        "hidden_size": 4096,
        "intermediate_size": 12800,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 49152,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.1-70B": {
        "model_type": "llama",
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    },
    "google/siglip-so400m-patch14-224": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
}
"""Configurations of released models, by Hub id."""


def config_of(name: str) -> PretrainedConfig:
    """The configuration of a model.

    Args:
        name: a folder in transformers' convention or a Hub id.

    Raises:
        OSError, ValueError: it was found nowhere.
    """
    if name in KNOWN and not Path(name).is_dir():
        settings = dict(KNOWN[name])
        return AutoConfig.for_model(settings.pop("model_type"), **settings)
    with quiet_transformers():
        return AutoConfig.from_pretrained(name)
