"""``vislang export``: models of vislang for other libraries."""

from __future__ import annotations

from pathlib import Path

from vislang.commands.outputs import must_hold_folder
from vislang.console import console
from vislang.errors import UserError
from vislang.models.data2vec.finetuning import FineTuned
from vislang.models.data2vec.model import Data2Vec
from vislang.models.loading import load


def export_transformers(source: str, out: Path, modality: str | None) -> int:
    """Write a folder that transformers' Auto classes open; returns the exit status."""
    from vislang.convert.transformers_export import export

    must_hold_folder(out)
    model = load(source)
    if not isinstance(model, (Data2Vec, FineTuned)):
        raise UserError(f"{source}: is a {type(model).__name__}; export a data2vec model, fine-tuned or not.")
    for note in export(model, out, modality):
        console.print(f"note: {note}", markup=False)
    console.print(f"{out}: for transformers")
    return 0
