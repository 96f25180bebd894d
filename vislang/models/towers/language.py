"""Causal language models: opened by folder, packaged name or Hub id."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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

from vislang.cache import cache_folder, writing
from vislang.files import system_errors
from vislang.models.towers.causal_lm import CausalLM
from vislang.models.towers.fingerprints import fingerprint_of_files
from vislang.models.towers.packaged import PACKAGED, TowerError, check_complete, not_found
from vislang.models.towers.quiet import quiet_transformers
from vislang.models.towers.shapes import config_of
from vislang.models.towers.tuning import LoraConfig, Tuning, tune, updates_of
from vislang.nn.fake import FakeFloats
from vislang.nn.quantized import quantize_linears


@dataclass
class LanguageTower:
    """A causal language model with its tokenizer.

    Attributes:
        name: the folder, packaged name or Hub id that it was opened by.
        fingerprint: SHA-256 of its weights in float32, before quantization and tuning.
        lm: the language model.
        tokenizer: its tokenizer.
        quantized: whether its linear layers are kept in 8 bits.
    """

    name: str
    fingerprint: str
    lm: CausalLM
    tokenizer: PreTrainedTokenizerBase
    quantized: bool = False


def load_causal_lm(name: str) -> PreTrainedModel:
    """Open a causal language model by folder or Hub id, in float32, without its tokenizer.

    Raises:
        TowerError: it was not found, or is not a causal language model.
    """
    try:
        return _open(name)
    except TowerError:
        raise
    except (OSError, ValueError) as error:
        raise not_found("language model", name, error) from error


def _open(folder: str) -> PreTrainedModel:
    """The model in float32 and in evaluation mode.

    Raises:
        TowerError: some weights are missing; transformers would initialise them at random.
    """
    with quiet_transformers():
        lm, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    check_complete(f"language model {folder!r}", loading["missing_keys"])
    return lm.eval()


def load_language_tower(
    name: str,
    dtype: torch.dtype = torch.float32,
    quantize: bool = False,
    tuning: Tuning = "frozen",
    lora: LoraConfig | None = None,
) -> LanguageTower:
    """Open a causal language model by folder, packaged name or Hub id.

    Args:
        name: a folder in transformers' format, a packaged name or a Hub id.
        dtype: number type of the computation.
        quantize: keep its linear layers, except for the output layer and low-rank updates, in 8 bits.
        tuning: how it is trained; see :class:`~vislang.models.towers.tuning.TuneConfig`.
        lora: shape of the low-rank updates, for ``tuning="lora"``.

    Raises:
        TowerError: it was not found, or is not a causal language model.
        UserError: it cannot be trained in this way.
    """
    with _opening(name):
        folder = _folder_of(name)
        lm = _open(folder)
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder)
    marks = fingerprint_of_files(folder, lm.state_dict())
    return _tower(name, marks, lm.to(dtype), tokenizer, dtype, quantize, tuning, lora)


def outline_language_tower(
    name: str,
    fakes: FakeFloats,
    reads: bool,
    dtype: torch.dtype = torch.float32,
    quantize: bool = False,
    tuning: Tuning = "frozen",
    lora: LoraConfig | None = None,
    layers: int | None = None,
) -> LanguageTower:
    """The same tower from its configuration alone, with fake weights.

    Args:
        name, dtype, quantize, tuning, lora: see :func:`load_language_tower`.
        fakes: an active mode.
        reads: whether it reads text. Otherwise its tokenizer is not opened, and a tokenizer with one token replaces it.
        layers: number of layers; None builds all layers.

    Raises:
        TowerError: it was not found, or is not a causal language model.
        UserError: it cannot be trained in this way.
    """
    with _opening(name):
        folder = _folder_of(name)
        config = config_of(folder)
        if layers is not None:
            config.num_hidden_layers = layers
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder) if reads else _no_tokenizer()
        with fakes.building(), no_init_weights():
            lm = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
            lm.tie_weights()
    # Low-rank updates are small and are built with real weights, because peft converts them in place.
    return _tower(name, "", lm, tokenizer, dtype, quantize, tuning, lora)


@contextmanager
def _opening(name: str) -> Iterator[None]:
    """Raise a TowerError if a language model cannot be opened inside."""
    try:
        yield
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


def _folder_of(name: str) -> str:
    """The folder of a packaged model, which is converted first if necessary; any other name unchanged."""
    packaged = PACKAGED.get(name)
    if not Path(name).is_dir() and packaged is not None and (weights := packaged.find()) is not None:
        return str(_converted_gguf(weights))
    return name


def _no_tokenizer() -> PreTrainedTokenizerBase:
    end = "<|endoftext|>"
    tokenizer = Tokenizer(WordLevel({end: 0}, unk_token=end))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, unk_token=end)


def _tower(
    name: str,
    marks: str,
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    quantize: bool,
    tuning: Tuning,
    lora: LoraConfig | None,
) -> LanguageTower:
    """The tower of a model in ``dtype``, tuned and quantized as in :func:`load_language_tower`."""
    head = lm.get_output_embeddings()
    tune(lm, tuning, lora or LoraConfig(), f"language model {name!r}", spared=[head] if tuning == "lora" else [])
    if quantize:
        whole = {head, *updates_of(lm)}
        if not quantize_linears(lm, lambda linear: linear in whole):
            raise TowerError(f"language model {name!r}: has no linear layers to quantize. Set quantize to false.")
    return LanguageTower(name, marks, CausalLM(lm, tuning != "frozen", dtype), tokenizer, quantize)


def _converted_gguf(weights: Path) -> Path:
    """Convert the model of a GGUF file to a folder of safetensors in the cache, once.

    Opening a GGUF takes about 25 s; opening the converted folder takes less than 1 s.
    """
    stamp = weights.stat()
    folder = cache_folder("towers") / f"{weights.stem}-{stamp.st_size}-{int(stamp.st_mtime)}"
    if (folder / "model.safetensors").is_file() and (folder / "tokenizer.json").is_file():
        return folder
    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(**source)
        quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # transformers cannot save a model that it read from GGUF, so the weights are copied to a new model.
    settings = {k: v for k, v in quantized.config.to_dict().items() if k != "quantization_config"}
    fresh: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
    fresh.load_state_dict(quantized.state_dict())
    with writing(folder.parent):
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix="unfinished-"))
        try:
            with system_errors(folder), quiet_transformers():
                fresh.save_pretrained(unfinished)
                tokenizer.save_pretrained(unfinished)
        except BaseException:
            shutil.rmtree(unfinished)
            raise
    try:
        os.replace(unfinished, folder)
    except OSError:
        # Another process finished the same conversion first.
        shutil.rmtree(unfinished)
    return folder
