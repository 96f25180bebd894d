"""``vislang convert``: open weights of other code, and verify them against recorded outputs of that code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vislang.commands.options import positional, required
from vislang.commands.outputs import must_hold_folder
from vislang.console import console
from vislang.errors import UserError
from vislang.files import must_be_file


@dataclass(frozen=True)
class Fairseq:
    """Convert a data2vec checkpoint (v1 or v2) from fairseq.

    Attributes:
        weights: checkpoint (.pt)
        out: folder to write
        config: JSON file with fairseq's configuration of the model
        lenient: ignore missing and unexpected keys
    """

    weights: Path = positional()
    out: Path = positional()
    config: Path = required()
    lenient: bool = False

    def run(self) -> int:
        """Write the model; returns 0."""
        must_hold_folder(self.out)
        values = read_json(self.config)
        from vislang.convert import fairseq, fairseq_config
        from vislang.convert.checkpoint import read_checkpoint

        model = fairseq_config.build(values)
        _print_ignored(fairseq.load_weights(model, read_checkpoint(self.weights), self.lenient))
        _save_data2vec(model, self.out)
        return 0


@dataclass(frozen=True)
class ViLBERT:
    """Convert a ViLBERT checkpoint from vilbert-multi-task, vilbert_beta or MMF.

    Attributes:
        weights: checkpoint (.bin, .pt, .tar)
        out: folder to write
        config: JSON file with the original's configuration
        lenient: ignore missing and unexpected keys
    """

    weights: Path = positional()
    out: Path = positional()
    config: Path = required()
    lenient: bool = False

    def run(self) -> int:
        """Write the model; returns 0."""
        must_hold_folder(self.out)
        values = read_json(self.config)
        from vislang.convert import vilbert
        from vislang.convert.checkpoint import read_checkpoint

        state = vilbert.canonical(read_checkpoint(self.weights))
        model = vilbert.build(values, state)
        _print_ignored(vilbert.load_weights(model, state, self.lenient))
        model.save(self.out)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        console.print(f"{self.out}: {parameters:,} parameters, heads: {', '.join(model.heads) or 'for pretraining'}")
        return 0


@dataclass(frozen=True)
class OpenFlamingo:
    """Convert a checkpoint from OpenFlamingo.

    Attributes:
        weights: checkpoint (.pt)
        out: folder to write
        language_model: folder or Hub id of its language model
        config: JSON file with the original's settings
        vision_tower: folder or Hub id of its vision encoder; without it, the model reads features and no images
        lenient: ignore missing and unexpected keys
    """

    weights: Path = positional()
    out: Path = positional()
    language_model: str = required()
    config: Path = required()
    vision_tower: str | None = None
    lenient: bool = False

    def run(self) -> int:
        """Write the model; returns 0."""
        must_hold_folder(self.out)
        values = read_json(self.config)
        from vislang.convert import open_flamingo
        from vislang.convert.checkpoint import read_checkpoint

        state = open_flamingo.canonical(read_checkpoint(self.weights))
        model = open_flamingo.build(values, state, self.language_model)
        _print_ignored(open_flamingo.load_weights(model, state, self.lenient))
        if self.vision_tower is None:
            model.save(self.out)
        else:
            model.with_towers(self.vision_tower, open_flamingo.PROMPTS).save(self.out)
        shape = model.bridge.config
        console.print(
            f"{self.out}: gated layers {shape.gated_layers}, {shape.latents} latents, on {self.language_model}"
        )
        return 0


@dataclass(frozen=True)
class Transformers:
    """Convert a data2vec model from transformers, with or without a task head.

    Attributes:
        source: folder of the model, or a Hub id
        out: folder to write
    """

    source: str = positional()
    out: Path = positional()

    def run(self) -> int:
        """Write the model; returns 0."""
        must_hold_folder(self.out)
        from vislang.convert import transformers

        _save_data2vec(transformers.convert(self.source), self.out)
        return 0


@dataclass(frozen=True)
class Verify:
    """Compare a converted model with recorded outputs of the original; print the largest differences as JSON.

    Attributes:
        model: folder of the converted model
        reference: recorded inputs and outputs (.pt)
    """

    model: Path = positional()
    reference: Path = positional()

    def run(self) -> int:
        """Print the differences; returns 1 if one is above 1e-4, else 0."""
        from vislang.convert.verify import TOLERANCE, differences, read_reference
        from vislang.models.loading import load

        inputs, recorded, labels = read_reference(self.reference)
        model = load(self.model)
        origin = (getattr(model, "origin", None) or {}).get("format")
        try:
            ours = _outputs(model, origin, inputs, recorded, labels)
        except (RuntimeError, IndexError) as error:
            # A recorded tensor may be too wide for this model, or an id may be outside its vocabulary.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{self.reference}: {self.model} cannot read the recorded inputs ({reason}). They were recorded with a "
                "model of another shape, or the file is damaged."
            ) from error
        if ours is None:
            raise UserError(f"{self.model}: not a converted model, or converted from a format without recordings.")
        found = differences(recorded, ours)
        # JSON has no infinity: a missing output is null.
        print(json.dumps({name: gap if gap < float("inf") else None for name, gap in found.items()}, indent=1))
        return 0 if all(gap <= TOLERANCE for gap in found.values()) else 1


def _outputs(model: Any, origin: str | None, inputs: Any, recorded: Any, labels: Any) -> Any:
    """The outputs of a converted model for recorded inputs; None for a format without recordings."""
    if origin == "fairseq":
        from vislang.convert import fairseq

        return fairseq.outputs(model, inputs, model.origin["config"])
    if origin == "vilbert":
        from vislang.convert import vilbert

        return vilbert.outputs(model, inputs, labels)
    if origin == "open-flamingo":
        from vislang.convert import open_flamingo

        return open_flamingo.outputs(model, inputs, recorded)
    return None


def _print_ignored(faults: Sequence[str]) -> None:
    for fault in faults:
        console.print(f"ignored: {fault}", markup=False)


def _save_data2vec(model: Any, out: Path) -> None:
    from vislang.models.data2vec.finetuning import FineTuned

    model.save(out)
    modalities = ", ".join(model.modalities.present())
    if isinstance(model, FineTuned):
        parameters = sum(parameter.numel() for parameter in model.parameters())
        console.print(f"{out}: {modalities}, {parameters:,} parameters, with a head for {model.head_config.kind}")
    else:
        parameters = sum(parameter.numel() for parameter in model.student.parameters())
        console.print(f"{out}: {modalities}, {parameters:,} parameters, and their teacher")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: the file does not exist, or holds no JSON object.
    """
    wanted = "the JSON file of the model's configuration"
    must_be_file(path, wanted)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}). Give {wanted}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: a JSON {type(values).__name__}, not an object. Give {wanted}.")
    return values
