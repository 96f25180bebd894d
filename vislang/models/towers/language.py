"""Frozen causal language models: opened by folder, packaged name or Hub id."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.initialization import no_init_weights

from vislang.cache import cache_folder
from vislang.models.base import fingerprint
from vislang.models.towers.causal_lm import FrozenCausalLM
from vislang.models.towers.packaged import PACKAGED, TowerError, check_complete, not_found
from vislang.models.towers.quiet import quiet_transformers
from vislang.models.towers.shapes import config_of
from vislang.nn.fake import FakeFloats
from vislang.nn.quantized import quantize_linears


@dataclass
class LanguageTower:
    """A frozen causal language model with its tokenizer.

    Attributes:
        name: the folder, packaged name or Hub id that it was opened by.
        fingerprint: SHA-256 over its weights in float32, before any quantization.
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
        return _open(name)
    except TowerError:
        raise
    except (OSError, ValueError) as error:
        raise not_found("language model", name, error) from error


def _open(folder: str) -> PreTrainedModel:
    """The model of a folder or a Hub id, in float32 and in evaluation mode.

    Raises:
        TowerError: some of its weights are missing, which transformers would draw at random.
    """
    with quiet_transformers():
        lm, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    check_complete(f"language model {folder!r}", loading["missing_keys"])
    return lm.eval()


def load_language_tower(name: str, dtype: torch.dtype = torch.float32, quantize: bool = False) -> LanguageTower:
    """Open a frozen causal language model by folder, packaged name or Hub id.

    Args:
        name: a folder in transformers' convention, a packaged name or a Hub id.
        dtype: number type of the arithmetic.
        quantize: keep its linear maps in 8 bits, all but the head.

    Raises:
        TowerError: it was found nowhere, or is no causal language model.
    """
    try:
        folder = _folder_of(name)
        lm = _open(folder)
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder)
    except ImportError as error:
        needed = (str(error).strip().splitlines() or [""])[0]
        raise TowerError(
            f"language model {name!r}: a package to open it with is missing ({needed}). "
            "Run: pip install 'vislang[demo]'"
        ) from None
    except TowerError:
        raise
    except (OSError, ValueError) as error:
        raise not_found("language model", name, error) from error
    marks = fingerprint(lm.state_dict())
    lm = lm.to(dtype)
    if quantize:
        _quantize(lm, name)
    return LanguageTower(name, marks, FrozenCausalLM(lm), tokenizer, quantize)


def outline_language_tower(
    name: str,
    fakes: FakeFloats,
    reads: bool,
    dtype: torch.dtype = torch.float32,
    quantize: bool = False,
    layers: int | None = None,
) -> LanguageTower:
    """The same tower by its configuration alone, with fake weights.

    Args:
        name, dtype, quantize: see :func:`load_language_tower`.
        fakes: an active mode.
        reads: whether it reads text. Otherwise its tokenizer need not be here; one of a single token stands in.
        layers: build so many of its layers; None builds all.

    Raises:
        TowerError: it was found nowhere, or is no causal language model.
    """
    try:
        folder = _folder_of(name)
        config = config_of(folder)
        if layers is not None:
            config.num_hidden_layers = layers
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder) if reads else _no_tokenizer()
        with fakes.building(), no_init_weights():
            lm = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
            lm.tie_weights()
            if quantize:
                _quantize(lm, name)
            return LanguageTower(name, "", FrozenCausalLM(lm), tokenizer, quantize)
    except TowerError:
        raise
    except (OSError, ValueError) as error:
        raise not_found("language model", name, error) from error


def _folder_of(name: str) -> str:
    """The folder of a packaged model, converted where need be; any other name as it is."""
    packaged = PACKAGED.get(name)
    if not Path(name).is_dir() and packaged is not None and (weights := packaged.find()) is not None:
        return str(_converted_gguf(weights))
    return name


def _quantize(lm: PreTrainedModel, name: str) -> None:
    """Keep a model's linear maps in 8 bits, all but the head.

    Raises:
        TowerError: it has none.
    """
    head = lm.get_output_embeddings()
    if not quantize_linears(lm, lambda linear: linear is head):
        raise TowerError(f"language model {name!r}: has no linear maps to keep in 8 bits. Set quantize to false.")


def _no_tokenizer() -> PreTrainedTokenizerBase:
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({end: 0}, unk_token=end)), eos_token=end, unk_token=end
    )


def _converted_gguf(weights: Path) -> Path:
    """The model of a GGUF file as a folder of safetensors in the cache, converted by the first call.

    Opening the GGUF takes about 25 s, the converted folder less than one.
    """
    stamp = weights.stat()
    folder = cache_folder("towers") / f"{weights.stem}-{stamp.st_size}-{int(stamp.st_mtime)}"
    if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file():
        return folder
    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(**source)
        quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # transformers cannot save a model that it read from GGUF, so its weights are moved into a new one.
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
