"""Frozen causal language models: opened by folder, packaged name or Hub id."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from vislang.cache import cache_folder
from vislang.models.base import fingerprint
from vislang.models.towers.causal_lm import FrozenCausalLM
from vislang.models.towers.packaged import PACKAGED, TowerError, not_found
from vislang.nn.quantized import quantize_linears

# transformers draws bars of its own while it loads; a second of loading needs none.
transformers_logging.disable_progress_bar()


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


def load_causal_lm(name: str) -> PreTrainedModel:
    """Open a causal language model of a folder or a Hub id, in float32, without its tokenizer.

    Raises:
        TowerError: it was found nowhere, or is no causal language model.
    """
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise not_found("language model", name, error) from error


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
        raise not_found("language model", name, error) from error
    marks = fingerprint(lm.state_dict())
    lm = lm.to(dtype)
    if quantize:
        head = lm.get_output_embeddings()
        if not quantize_linears(lm, lambda linear: linear is head):
            raise TowerError(f"language model {name!r}: has no linear maps to keep in 8 bits. Set quantize to false.")
    return LanguageTower(name, marks, FrozenCausalLM(lm), tokenizer, quantize)


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
