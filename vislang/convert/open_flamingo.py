"""OpenFlamingo's checkpoints (Awadalla et al. 2023, arXiv 2308.01390): resampler, gated blocks, trained embeddings.

Their checkpoints leave the frozen language model out, but for its embedding matrix, which grew by the added tokens.
Layers are named by the language model's own paths, so that which of them are gated is read off the keys.
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
"""Second names of the same layers, which early checkpoints hold too."""

PATHS = {
    "model.layers": "Llama",
    "model.decoder.layers": "OPT",
    "gpt_neox.layers": "GPT-NeoX and RedPajama",
    "transformer.blocks": "MPT",
    "transformer.h": "GPT-J and MPT in transformers",
}
"""Where the layers of the language models that were released lie."""

PROMPTS = Prompts(question="{image}Question:{question} Short answer:", caption="{image}Output:")
"""The templates of OpenFlamingo's evaluation."""

MOST_ADDED = 1000
"""Embeddings that may differ from the language model's: of added tokens, and of padding up to a round number."""

EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight")


def canonical(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their plain names, without ``module.`` and without the second names of layers."""
    inner = state.get("model_state_dict", state)
    found = {key.removeprefix("module."): value for key, value in inner.items() if isinstance(value, Tensor)}
    return {key: value for key, value in found.items() if not ALIAS.match(key)}


def build(config: Mapping[str, Any], state: Mapping[str, Tensor], language_model: str) -> ConvertedFlamingo:
    """A model of the checkpoint's shape, its weights not yet filled in.

    Args:
        config: the original's settings: ``media_token_id``, ``eoc_token_id`` (the end of chunks, needed to read
            prompts), and ``heads`` where there are not 8.
        state: the checkpoint, by :func:`canonical`.
        language_model: folder or Hub id.

    Raises:
        ConversionError: the checkpoint holds no bridge, or not one for this language model.
        TowerError: there is no such language model.
    """
    settings = Settings(config)
    paths = {match["path"] for key in state if (match := GATED.match(key))}
    layers = sorted({int(match["layer"]) for key in state if (match := GATED.match(key))})
    if not layers or "perceiver.latents" not in state:
        raise ConversionError("checkpoint: no gated_cross_attn_layer and no perceiver in it; it is not OpenFlamingo's.")
    if len(paths) != 1 or (path := paths.pop()) not in PATHS:
        known = ", ".join(f"{name} ({family})" for name, family in PATHS.items())
        raise ConversionError(f"checkpoint: gated layers at {paths}; known are {known}.")
    first = f"lang_encoder.{path}.{layers[0]}.gated_cross_attn_layer"
    latents, width = state["perceiver.latents"].shape
    depth = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("perceiver.layers."))
    heads = settings.get("heads", 8)
    if any(key.startswith("perceiver.") and key.endswith(("frame_embs", "media_time_embs")) for key in state):
        raise ConversionError("checkpoint: has embeddings of frames or of media, which are not converted.")
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
            f"checkpoint: is for a language model of width {query_width}, and {language_model} has "
            f"{model.bridge.lm.width}."
        )
    return model


def _changed_rows(state: Mapping[str, Tensor], language_model: str) -> tuple[Tensor, Tensor]:
    """Tokens whose embedding in the checkpoint is not the language model's, and these embeddings."""
    own = load_causal_lm(language_model).get_input_embeddings().weight.detach()
    names = [key for key in state if key.startswith("lang_encoder.") and key.endswith(EMBEDDINGS)]
    if not names:
        return torch.zeros(0, dtype=torch.long), own.new_zeros(0, own.shape[1])
    trained = state[names[0]].float()
    if trained.shape[1] != own.shape[1]:
        raise ConversionError(
            f"checkpoint: embeddings of width {trained.shape[1]}, and {language_model} has {own.shape[1]}."
        )
    shared = min(len(own), len(trained))
    changed = torch.ones(len(trained), dtype=torch.bool)
    changed[:shared] = (trained[:shared] != own[:shared].float()).any(dim=1)
    if changed.sum() > MOST_ADDED:
        raise ConversionError(
            f"checkpoint: {int(changed.sum())} embeddings are not those of {language_model}; it was trained on another "
            "language model."
        )
    return changed.nonzero()[:, 0], trained[changed]


def load_weights(model: ConvertedFlamingo, state: Mapping[str, Tensor], lenient: bool = False) -> list[str]:
    """Fill in the weights.

    Returns:
        The faults that ``lenient`` ignored.

    Raises:
        ConversionError: keys are missing or unexpected, and ``lenient`` is false; or a size does not fit.
    """
    wanted: Keys = dict(keys(model))
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted and not key.endswith(EMBEDDINGS)]
    faults = [f"missing {key}" for key in missing] + [f"unexpected {key}" for key in unexpected]
    if faults and not lenient:
        raise ConversionError(f"checkpoint: {'; '.join(faults[:20])}. Pass --lenient to convert without these.")
    with torch.no_grad():
        fill(model.bridge.state_dict(), wanted, state)
    return faults


def keys(model: ConvertedFlamingo) -> Iterator[tuple[str, Slot]]:
    """Each key of theirs, and the parameter of the bridge that it fills."""
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
    """The model's outputs for recorded inputs, by the names of the recording.

    Args:
        model: converted.
        inputs: ``vision_features`` (batch, media, frames, positions, width), ``input_ids``, ``attention_mask``,
            ``labels``.
        recorded: the original's outputs, for the number of tokens that were written.
    """
    bridge, features = model.bridge, inputs["vision_features"]
    if features.shape[2] != 1:
        raise ConversionError("reference: several frames; OpenFlamingo reads one.")
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
    """As many greedy tokens after each row (rows, count) as the original writes in one batch.

    The original takes the positions of media from the tokens that it was last given with a media token among them, for
    all rows at once. Where one row writes a media token, it attends to its first medium from there on, as in
    :meth:`Runner.advance`, and all other rows attend to nothing. So a row's text depends on the rows beside it. Our own
    decoding treats each row as if it were alone; only a recording is repeated with its whole batch.
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
