"""OpenFlamingo's checkpoints (Awadalla et al. 2023, arXiv 2308.01390): resampler, gated blocks, trained embeddings.

Of the frozen language model, these checkpoints contain only the embedding matrix, which was extended by the added
tokens. Their keys contain the language model's own module paths, from which the gated layers are determined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vislang.convert.keys import ConversionError, Keys, Slot, fill
from vislang.convert.settings import Settings
from vislang.models.flamingo.collate import IGNORED, Batch
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.converted import ConvertedFlamingo
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.prefill import NextSteps, Runner
from vislang.models.towers.language import load_causal_lm
from vislang.prompt import Prompts

GATED = re.compile(r"^lang_encoder\.(?P<path>.+)\.(?P<layer>\d+)\.gated_cross_attn_layer\.")
ALIAS = re.compile(r"^lang_encoder\.(old_decoder_blocks|gated_cross_attn_layers)\.")
"""Second names of the same layers, which early checkpoints contain as well."""

PATHS = {
    "model.layers": "Llama",
    "model.decoder.layers": "OPT",
    "gpt_neox.layers": "GPT-NeoX and RedPajama",
    "transformer.blocks": "MPT",
    "transformer.h": "GPT-J and MPT in transformers",
}
"""The module paths of the layers in the released language models."""

PROMPTS = Prompts(question="{image}Question:{question} Short answer:", caption="{image}Output:")
"""The prompts of OpenFlamingo's evaluation."""

MAX_CHANGED = 1000
"""The greatest number of embeddings that may differ from the language model's: those of added tokens and of padding."""

EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight")


def canonical(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint without the prefix ``module.`` and without the second names of layers."""
    inner = state.get("model_state_dict", state)
    found = {key.removeprefix("module."): value for key, value in inner.items() if isinstance(value, Tensor)}
    return {key: value for key, value in found.items() if not ALIAS.match(key)}


def build(config: Mapping[str, Any], state: Mapping[str, Tensor], language_model: str) -> ConvertedFlamingo:
    """Make a model for a checkpoint; :func:`load_weights` loads its weights.

    Args:
        config: the original's settings: ``media_token_id``, ``eoc_token_id`` (the end of a chunk, needed to read
            prompts), and ``heads`` if there are not 8.
        state: the checkpoint, by :func:`canonical`.
        language_model: folder or Hub id.

    Raises:
        ConversionError: the checkpoint contains no bridge, or one for another language model.
        TowerError: the language model cannot be opened.
    """
    settings = Settings(config)
    paths = {match["path"] for key in state if (match := GATED.match(key))}
    layers = sorted({int(match["layer"]) for key in state if (match := GATED.match(key))})
    if not layers or "perceiver.latents" not in state:
        raise ConversionError(
            "checkpoint: it contains no gated_cross_attn_layer or no perceiver; it is not an OpenFlamingo checkpoint."
        )
    if len(paths) != 1 or (path := paths.pop()) not in PATHS:
        known = ", ".join(f"{name} ({family})" for name, family in PATHS.items())
        raise ConversionError(f"checkpoint: the gated layers are in {paths}; supported are {known}.")
    first = f"lang_encoder.{path}.{layers[0]}.gated_cross_attn_layer"
    latents, width = state["perceiver.latents"].shape
    depth = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("perceiver.layers."))
    heads = settings.get("heads", 8)
    if any(key.startswith("perceiver.") and key.endswith(("frame_embs", "media_time_embs")) for key in state):
        raise ConversionError("checkpoint: it has embeddings of frames or of media, which are not supported.")
    shape = FlamingoConfig(
        gated_layers=layers,
        latents=latents,
        resampler_width=width,
        resampler_depth=depth,
        heads=heads,
        head_width=state[f"{first}.attn.to_q.weight"].shape[0] // heads,
        expansion=state[f"{first}.ff.1.weight"].shape[0] // state[f"{first}.ff.1.weight"].shape[1],
        scales=[1.0] * len(layers),
        gate_all_text=True,
        media_token=settings.need("media_token_id", int),
        chunk_token=settings.get("eoc_token_id", None),
    )
    ids, rows = _changed_rows(state, language_model)
    model = ConvertedFlamingo(
        shape, language_model, width, ids, rows, {"format": "open-flamingo", "config": dict(config), "path": path}
    )
    query_width = state[f"{first}.attn.to_q.weight"].shape[1]
    if model.bridge.lm.width != query_width:
        raise ConversionError(
            f"checkpoint: it is for a language model of width {query_width}; the width of {language_model} is "
            f"{model.bridge.lm.width}."
        )
    return model


def _changed_rows(state: Mapping[str, Tensor], language_model: str) -> tuple[Tensor, Tensor]:
    """The tokens whose embeddings in the checkpoint differ from the language model's, and these embeddings."""
    own = load_causal_lm(language_model).get_input_embeddings().weight.detach()
    names = [key for key in state if key.startswith("lang_encoder.") and key.endswith(EMBEDDINGS)]
    if not names:
        return torch.zeros(0, dtype=torch.long), own.new_zeros(0, own.shape[1])
    trained = state[names[0]].float()
    if trained.shape[1] != own.shape[1]:
        raise ConversionError(
            f"checkpoint: the width of its embeddings is {trained.shape[1]}; that of {language_model} is "
            f"{own.shape[1]}."
        )
    shared = min(len(own), len(trained))
    changed = torch.ones(len(trained), dtype=torch.bool)
    changed[:shared] = (trained[:shared] != own[:shared].float()).any(dim=1)
    if changed.sum() > MAX_CHANGED:
        raise ConversionError(
            f"checkpoint: {int(changed.sum())} embeddings differ from those of {language_model}; it was trained with "
            "another language model."
        )
    return changed.nonzero()[:, 0], trained[changed]


def load_weights(model: ConvertedFlamingo, state: Mapping[str, Tensor], lenient: bool = False) -> list[str]:
    """Load the weights.

    Returns:
        The problems that ``lenient`` ignored.

    Raises:
        ConversionError: keys are missing or unexpected, and ``lenient`` is false; or a tensor has the wrong size.
    """
    expected: Keys = dict(keys(model))
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected and not key.endswith(EMBEDDINGS)]
    problems = [f"missing {key}" for key in missing] + [f"unexpected {key}" for key in unexpected]
    if problems and not lenient:
        raise ConversionError(f"checkpoint: {'; '.join(problems[:20])}. To convert it anyway, add --lenient.")
    with torch.no_grad():
        fill(model.bridge.state_dict(), expected, state)
    return problems


def keys(model: ConvertedFlamingo) -> Iterator[tuple[str, Slot]]:
    """Each key of a checkpoint, and the bridge's parameter for it."""
    assert model.origin is not None
    yield "perceiver.latents", Slot("resampler.latents")
    for layer in range(model.bridge.config.resampler_depth):
        theirs, ours = f"perceiver.layers.{layer}", f"resampler.layers.{layer}"
        for side in ("media", "latents"):
            name = "features" if side == "media" else side
            for kind in ("weight", "bias"):
                yield f"{theirs}.0.norm_{side}.{kind}", Slot(f"{ours}.norm_{name}.{kind}")
        yield from _attention(f"{theirs}.0", f"{ours}.attention")
        yield from _feed_forward(f"{theirs}.1", f"{ours}.feed_forward")
    for kind in ("weight", "bias"):
        yield f"perceiver.norm.{kind}", Slot(f"resampler.norm.{kind}")
    for layer in model.bridge.gated_layers:
        theirs = f"lang_encoder.{model.origin['path']}.{layer}.gated_cross_attn_layer"
        ours = f"gated_blocks.{layer}"
        yield f"{theirs}.attn_gate", Slot(f"{ours}.attention_gate")
        yield f"{theirs}.ff_gate", Slot(f"{ours}.feed_forward_gate")
        for kind in ("weight", "bias"):
            yield f"{theirs}.attn.norm.{kind}", Slot(f"{ours}.norm.{kind}")
        yield from _attention(f"{theirs}.attn", f"{ours}.attention")
        yield from _feed_forward(f"{theirs}.ff", f"{ours}.feed_forward")


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, Slot]]:
    for part, name in (("to_q", "to_queries"), ("to_kv", "to_keys_values"), ("to_out", "to_output")):
        yield f"{theirs}.{part}.weight", Slot(f"{ours}.{name}.weight")


def _feed_forward(theirs: str, ours: str) -> Iterator[tuple[str, Slot]]:
    for key in ("0.weight", "0.bias", "1.weight", "3.weight"):
        yield f"{theirs}.{key}", Slot(f"{ours}.{key}")


@torch.no_grad()
def outputs(
    model: ConvertedFlamingo | Flamingo, inputs: Mapping[str, Any], recorded: Mapping[str, Any]
) -> dict[str, Any]:
    """The model's outputs for recorded inputs, by the names in the recording.

    Args:
        model: the converted model.
        inputs: ``vision_features`` (batch, media, frames, positions, width), ``input_ids``, ``attention_mask``,
            ``labels``.
        recorded: the original's outputs, from which the number of generated tokens is taken.
    """
    bridge, features = model.bridge, inputs["vision_features"]
    if features.shape[2] != 1:
        raise ConversionError("reference: its media have several frames; OpenFlamingo supports one.")
    latents = bridge.resampler(features.flatten(0, 1))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    rows, media = features.shape[:2]
    is_media = ids == bridge.media_token
    batch = Batch(
        ids,
        mask,
        is_media.cumsum(dim=-1),
        torch.full_like(ids, IGNORED),
        torch.arange(rows * media).view(rows, media),
        0,
        features=features.flatten(0, 1),
    )
    logits = bridge(batch)
    found: dict[str, Any] = {"resampled": latents.unflatten(0, (rows, media)), "logits": logits}
    if "labels" in inputs:
        labels = inputs["labels"]
        found["loss"] = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    if "greedy" in recorded:
        count = torch.as_tensor(recorded["greedy"]).shape[1] - ids.shape[1]
        found["greedy"] = torch.cat([ids, _greedy(Runner(bridge), batch, count)], dim=1)
    return found


def _greedy(runner: Runner, batch: Batch, count: int) -> Tensor:
    """``count`` greedy tokens after each row, (rows, count), as the original generates them in one batch.

    The original takes the positions of media, for all rows, from the latest input that contained a media token. When
    one row generates a media token, that row attends to its first medium from then on, as in :meth:`Runner.advance`,
    and all other rows attend to no media. So the text of a row depends on the other rows in its batch. Our own
    decoding treats each row as if it were alone; the original's behaviour is reproduced here to compare recordings.
    """
    state = runner.prefill(batch)
    steps, written = NextSteps(runner, state), []
    for _ in range(count):
        tokens = runner.next_log_probabilities(state.hidden).argmax(dim=-1)
        written.append(tokens)
        if bool((tokens == runner.bridge.media_token).any()):
            state = replace(state, media_time=torch.zeros_like(state.media_time))
        state = runner.advance(state, tokens, steps)
    return torch.stack(written, dim=1)
