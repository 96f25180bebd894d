"""``vislang explain``: a page that shows how a model came to what it says of an image and a text."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vislang.capabilities import Explains
from vislang.case import Case
from vislang.commands.deciding import told
from vislang.commands.outputs import must_hold_file
from vislang.console import console
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.evaluate.explain_page import write_explanation
from vislang.models.loading import load


def explain(source: str, image: str, text: str, head: str | None, out: Path) -> int:
    """Write the page, print the decision; returns 0.

    Raises:
        UserError: the model has nothing to show, or no such task, or the page cannot be written.
        MediaError: the image cannot be used.
    """
    must_hold_file(out)
    picture = Image(image)
    decoded = picture.decode()
    model = load(source)
    if not isinstance(model, Explains):
        raise UserError(f"{source}: is a {type(model).__name__}, which has no co-attention to show; give a ViLBERT.")
    case = Case(image, (Document([picture, text], name=image),))
    case = dataclasses.replace(case, task=model.head_for(case, head))
    explained = model.explain(case)
    write_explanation(out, decoded, text, explained, f"{source}, task {case.task}")
    console.print(f"[bold]{told(explained.decision)}[/bold]")
    console.print(f"[bold]{out}[/bold] shows why")
    return 0
