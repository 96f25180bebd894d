"""Packs: the examples of a prompt in a file, with all that the model has computed of them.

A model that opens a pack reads none of its examples again. The file is in the safetensors format and contains:

* ``description``: JSON in UTF-8: the parts of the prompt, the hashes of what made it, and settings;
* ``media.N``: each image or video, as it was encoded;
* ``latents``: the resampled media (media, latents, width);
* ``gated.LAYER.keys``, ``.values``: their projections for a gated block (media, heads, latents, head width);
* ``layer.N.keys``, ``.values``: those of the language model (1, heads, tokens, head width);
* ``ids``, ``hidden``, ``media_index``, ``media_time``: see :class:`~vislang.models.flamingo.prefill.DecodeState`.

Its metadata have a hash of all this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import DynamicCache

from vislang.capabilities import Prefix
from vislang.document import Document, EndOfChunk, Image, InMemory, Learned, Medium, Part, Video
from vislang.errors import UserError
from vislang.files import must_be_file, whole_file
from vislang.models.base import fingerprint
from vislang.models.flamingo.media import MediaKeysValues
from vislang.models.flamingo.prefill import DecodeState
from vislang.nn.attention import KeysValues

FORMAT = "vislang pack 1"

_MEDIA: dict[str, type[Image | Video]] = {"image": Image, "video": Video}


def write_pack(
    path: Path, prefix: Prefix, latents: Tensor, makers: Mapping[str, str], settings: Mapping[str, Any]
) -> None:
    """Write a prefix to a file, atomically.

    Args:
        path: the file.
        prefix: the examples and the decode state after them.
        latents: (media, latents, width) of each distinct medium.
        makers: the hashes of the models that computed the state, by what they are.
        settings: other settings that it depends on, as JSON values.

    Raises:
        OSError: it cannot be written.
    """
    media: dict[str, Medium] = {p.content_hash: p for p in prefix.document.parts if isinstance(p, Medium)}
    numbers = {content: number for number, content in enumerate(media)}
    description = {
        "parts": [_described(part, numbers) for part in prefix.document.parts],
        "makers": dict(makers),
        "settings": dict(settings),
    }
    state = prefix.state
    tensors = {
        "description": _bytes(json.dumps(description).encode()),
        "latents": latents,
        "ids": state.ids,
        "hidden": state.hidden,
        "media_index": state.media.index,
        "media_time": state.media_time,
    }
    tensors |= {f"media.{numbers[content]}": _bytes(medium.read()) for content, medium in media.items()}
    for layer, (keys, values) in state.media.by_layer.items():
        tensors |= {f"gated.{layer}.keys": keys, f"gated.{layer}.values": values}
    for number, own in enumerate(state.cache.layers):
        tensors |= {f"layer.{number}.keys": own.keys, f"layer.{number}.values": own.values}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole_file(path) as unfinished:
        metadata = {"format": FORMAT, "sha256": fingerprint(tensors)}
        safetensors.torch.save_file(tensors, unfinished, metadata=metadata)


def read_pack(path: Path, makers: Mapping[str, str], settings: Mapping[str, Any], device: torch.device) -> Prefix:
    """The prefix in a file.

    Args:
        path: the file.
        makers, settings: those of the model that will continue it; see :func:`write_pack`.
        device: where the state is needed.

    Raises:
        UserError: there is no such file, it is damaged or no pack, or was made by another model; the message names
            which part differs.
    """
    must_be_file(path, "a pack, which vislang pack writes")
    tensors = _checked(path)
    description = json.loads(tensors["description"].numpy().tobytes())
    for part, own in makers.items():
        if (found := description["makers"][part]) != own:
            raise UserError(
                f"{path}: was made with another {part} (hash {found[:16]}..., this model's is {own[:16]}...). Make it "
                "again for this model with vislang pack."
            )
    for name, value in settings.items():
        if (found := description["settings"].get(name)) != value:
            raise UserError(
                f"{path}: was made with the setting {name} {found!r}, and this model has {value!r}. Make it again for "
                "this model with vislang pack."
            )
    parts = [_part(described, tensors, path) for described in description["parts"]]
    return Prefix(Document(parts, name=str(path)), _state(tensors, device))


def _checked(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, if they are those that were written."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load(path.read_bytes())
    except SafetensorError as error:
        raise UserError(f"{path}: no pack, or damaged ({error}). Make it again with vislang pack.") from None
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not a pack of this version of vislang. Make it again with vislang pack.")
    if metadata.get("sha256") != fingerprint(tensors):
        raise UserError(f"{path}: damaged: its content does not match its hash. Copy it again, or make it again.")
    return tensors


def _described(part: Part, numbers: Mapping[str, int]) -> dict[str, Any]:
    """A part as JSON values; media by their number."""
    if isinstance(part, str):
        return {"text": part}
    if isinstance(part, Learned):
        return {"learned": part.text}
    if isinstance(part, EndOfChunk):
        return {"end": True}
    for kind, made in _MEDIA.items():
        if isinstance(part, made):
            return {kind: numbers[part.content_hash], "name": Path(part.name).name}
    raise UserError(f"a pack holds text, images and videos, and no {type(part).__name__}.")


def _part(described: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> Part:
    if "text" in described:
        return described["text"]
    if "learned" in described:
        return Learned(described["learned"])
    if "end" in described:
        return EndOfChunk()
    (kind,) = described.keys() & _MEDIA.keys()
    content = tensors[f"media.{described[kind]}"].numpy().tobytes()
    return _MEDIA[kind](InMemory(f"{path}: {described['name']}", content))


def _state(tensors: Mapping[str, Tensor], device: torch.device) -> DecodeState:
    on_device = {name: tensor.to(device) for name, tensor in tensors.items() if not name.startswith(("media.", "desc"))}
    cache = DynamicCache()
    for number in range(sum(name.startswith("layer.") for name in on_device) // 2):
        cache.update(on_device[f"layer.{number}.keys"], on_device[f"layer.{number}.values"], number)
    gated = sorted({int(name.split(".")[1]) for name in on_device if name.startswith("gated.")})
    by_layer = {n: KeysValues(on_device[f"gated.{n}.keys"], on_device[f"gated.{n}.values"]) for n in gated}
    ids = on_device["ids"]
    return DecodeState(
        cache,
        ids,
        torch.ones_like(ids),
        torch.tensor([ids.shape[1]], device=device),
        MediaKeysValues(by_layer, on_device["media_index"]),
        on_device["media_time"],
        on_device["hidden"],
    )


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())
