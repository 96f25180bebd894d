"""``vislang export``: write models for other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vislang.commands.options import positional
from vislang.commands.outputs import must_hold_folder
from vislang.console import console
from vislang.errors import UserError


@dataclass(frozen=True)
class Export:
    """Write a data2vec model, pretrained or fine-tuned, as a folder that transformers' Auto classes open.

    Attributes:
        model: folder of a data2vec model, or a Hub id
        out: folder to write
        modality: modality to export, if the model reads several
    """

    model: str = positional()
    out: Path = positional()
    modality: Literal["text", "image", "speech"] | None = None

    def run(self) -> int:
        """Write the folder; returns 0."""
        must_hold_folder(self.out)
        from vislang.convert.transformers_export import export
        from vislang.models.data2vec.finetuning import FineTuned
        from vislang.models.data2vec.model import Data2Vec
        from vislang.models.loading import load

        model = load(self.model)
        if not isinstance(model, (Data2Vec, FineTuned)):
            raise UserError(f"{self.model}: a {type(model).__name__} cannot be exported. Give a data2vec model.")
        for note in export(model, self.out, self.modality):
            console.print(f"note: {note}", markup=False)
        console.print(f"wrote [bold]{self.out}[/bold] for transformers")
        return 0
