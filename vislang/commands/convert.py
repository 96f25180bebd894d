"""``vislang convert``: weights of other code in, and how far they are from what that code computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vislang.commands.outputs import must_hold_folder
from vislang.console import console
from vislang.convert import fairseq, vilbert
from vislang.convert.checkpoint import read_checkpoint
from vislang.convert.verify import TOLERANCE, differences, read_reference
from vislang.errors import UserError
from vislang.models.data2vec.finetuning import FineTuned
from vislang.models.data2vec.model import Data2Vec
from vislang.models.loading import load


def convert_fairseq(weights: Path, config: Path, out: Path, lenient: bool) -> int:
    """Write a model folder from a data2vec checkpoint of fairseq and its configuration; returns the exit status."""
    must_hold_folder(out)
    model = fairseq.build(_read_json(config))
    passed_over = fairseq.load_weights(model, read_checkpoint(weights), lenient)
    for fault in passed_over:
        console.print(f"passed over: {fault}", markup=False)
    return _save(model, out)


def convert_vilbert(weights: Path, config: Path, out: Path, lenient: bool) -> int:
    """Write a model folder from a checkpoint of ViLBERT and its configuration; returns the exit status."""
    must_hold_folder(out)
    state = vilbert.canonical(read_checkpoint(weights))
    model = vilbert.build(_read_json(config), state)
    for passed_over in vilbert.load_weights(model, state, lenient):
        console.print(f"passed over: {passed_over}", markup=False)
    model.save(out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"{out}: {parameters:,} parameters, heads: {', '.join(model.heads) or 'those of pretraining'}")
    return 0


def convert_open_flamingo(
    weights: Path, config: Path, language_model: str, vision_tower: str | None, out: Path, lenient: bool
) -> int:
    """Write a model folder from a checkpoint of OpenFlamingo, for its language model; returns the exit status.

    With its vision tower the model can be asked; without one it takes features.
    """
    from vislang.convert import open_flamingo

    must_hold_folder(out)
    state = open_flamingo.canonical(read_checkpoint(weights))
    model = open_flamingo.build(_read_json(config), state, language_model)
    for passed_over in open_flamingo.load_weights(model, state, lenient):
        console.print(f"passed over: {passed_over}", markup=False)
    if vision_tower is None:
        model.save(out)
    else:
        model.with_towers(vision_tower, open_flamingo.PROMPTS).save(out)
    shape = model.bridge.config
    console.print(f"{out}: gated layers {shape.gated_layers}, {shape.latents} latents, on {language_model}")
    return 0


def convert_transformers(source: str, out: Path) -> int:
    """Write a model folder from a data2vec model of transformers; returns the exit status."""
    # Importing transformers takes seconds that the other origins need not wait for.
    from vislang.convert import transformers

    must_hold_folder(out)
    return _save(transformers.convert(source), out)


def _save(model: Data2Vec | FineTuned, out: Path) -> int:
    model.save(out)
    read = ", ".join(model.modalities.present())
    if isinstance(model, FineTuned):
        parameters = sum(parameter.numel() for parameter in model.parameters())
        console.print(f"{out}: {read}, {parameters:,} parameters, with a head for {model.head_config.kind}")
    else:
        parameters = sum(parameter.numel() for parameter in model.student.parameters())
        console.print(f"{out}: {read}, {parameters:,} parameters, and their teacher")
    return 0


def verify(folder: Path, reference: Path) -> int:
    """Print, as JSON, how far each recorded output is; returns 1 if any is further than 1e-4, else 0."""
    inputs, recorded, labels = read_reference(reference)
    model = load(folder)
    origin = (getattr(model, "origin", None) or {}).get("format")
    if origin not in ("fairseq", "vilbert", "open-flamingo"):
        raise UserError(f"{folder}: was not converted from an origin that can be verified.")
    try:
        if origin == "fairseq":
            ours = fairseq.outputs(model, inputs, model.origin["config"])
        elif origin == "vilbert":
            ours = vilbert.outputs(model, inputs, labels)
        else:
            from vislang.convert import open_flamingo

            ours = open_flamingo.outputs(model, inputs, recorded)
    except (RuntimeError, IndexError) as error:
        # Of the recording's tensors, any may be too wide for this model, and any id beyond its vocabulary.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{reference}: {folder} cannot read what was recorded ({reason}); it was recorded from a model of another "
            "shape, or is damaged."
        ) from error
    found = differences(recorded, ours)
    # Infinity is no JSON: what is missing is null.
    print(json.dumps({name: gap if gap < float("inf") else None for name, gap in found.items()}, indent=1))
    return 0 if all(gap <= TOLERANCE for gap in found.values()) else 1


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no JSON file ({error}).") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no JSON object.")
    return values
