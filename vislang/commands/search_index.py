"""Search in an index that ``vislang index`` made, by a text or an image; with marks, and with a second model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vislang.capabilities import Embeds, Matches, Ranks
from vislang.console import console, messages, reporting
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.metrics.figure import SCHEMA

if TYPE_CHECKING:
    from vislang.search.query import Found, Query, Results

RERANKED = 50
"""Results that a second model ranks again, or as many as are asked for, if they are more."""


def search_index(
    folder: Path,
    query: Query,
    count: int,
    model: str | None = None,
    rerank: str | None = None,
    right: Sequence[str] = (),
    wrong: Sequence[str] = (),
    forget: bool = False,
    exact: bool = False,
    device: str = "auto",
) -> Results:
    """Search in an index.

    Args:
        folder: the index.
        query: what is searched for.
        count: greatest number of results.
        model: where the model of the index is now; None opens it where it was.
        rerank: a model that ranks the first results again.
        right, wrong: images of the index that are marked; marks are kept with the index.
        forget: delete the marks of this query first.
        exact: compare all images, even if there is a graph.
        device: where models run.

    Raises:
        UserError: the index is damaged or of another model, a marked image is not in it, or the model cannot search by
            what is given.
    """
    from vislang.search.index import Index
    from vislang.search.query import Results, Searcher, new_marks
    from vislang.train.device import device_of

    if query.image is not None:
        query.image.decode()
    # Before a model is opened.
    new_marks(Index(folder), query, right, wrong)
    searcher = Searcher(folder, model, device_of(device))

    def note(text: str) -> None:
        messages.print(f"note: {text}", markup=False)

    wanted = max(count, RERANKED) if rerank else count
    results = searcher.search(query, wanted, right, wrong, forget, exact, note)
    found = _reranked(rerank, query, results.found, device) if rerank and results.found else results.found
    return Results(found[:count], results.marks, results.ended)


def _reranked(source: str, query: Query, results: list[Found], device: str) -> list[Found]:
    """The same results in the order of another model, with its scores.

    Raises:
        UserError: the model cannot compare the query with images.
    """
    from vislang.models.loading import load
    from vislang.train.device import device_of

    model: Any = load(source, device_of(device))
    images = [Image(found.path) for found in results]
    examples = [Example(image.name, Document([image], name=image.name)) for image in images]
    with reporting("ranking again") as report:
        if query.text is not None and isinstance(model, Matches) and model.why_unmatched() is None:
            model.prepare(examples, report)  # type: ignore[attr-defined]
            scores = model.match_all(images, [query.text])[:, 0].tolist()
        elif query.text is not None and isinstance(model, Ranks):
            prompts = [model.prompts.render(example) for example in examples]
            ranked = model.rank(prompts, [query.text], progress=report)
            scores = [own.log_likelihood / own.tokens for (own,) in ranked]
        elif query.image is not None and isinstance(model, Embeds):
            import torch

            documents = [Document([query.image], name=query.image.name), *(example.prompt for example in examples)]
            unit = torch.nn.functional.normalize(model.embed(documents, progress=report).float(), dim=-1)
            scores = (unit[1:] @ unit[0]).tolist()
        else:
            raise UserError(
                f"--rerank {source}: a {type(model).__name__} cannot compare "
                f"{'a text' if query.image is None else 'an image'} with images. Give a dual encoder, for example."
            )
    again = [replace(found, score=score) for found, score in zip(results, scores, strict=True)]
    return sorted(again, key=lambda found: -found.score)


def show(folder: Path, query: Query, results: Results, as_json: bool) -> None:
    """Print results as a table, or as one JSON object."""
    if as_json:
        asked = {"text": query.text} if query.image is None else {"image": query.image.name}
        images = [{"image": str(found.path), "score": round(found.score, 4)} for found in results.found]
        print(json.dumps({"schema": SCHEMA, **asked, "marks": results.marks, "ended": results.ended, "images": images}))
        return
    corrected = f", corrected by {results.marks} marks" if results.marks else ""
    table = Table(title=f"{query.title} in {folder}{corrected}", title_justify="left")
    table.add_column("probability" if results.marks else "score", justify="right")
    table.add_column("image", overflow="fold")
    for found in results.found:
        table.add_row(f"{found.score:.4f}", str(found.path))
    console.print(table)
    if results.ended:
        console.print("Nothing more here: by your marks, all other images are probably wrong.")
