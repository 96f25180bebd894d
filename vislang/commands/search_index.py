"""Search in an index that ``vislang index`` made, by a text or an image; with marks, and with a second model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vislang.console import console, messages, reporting
from vislang.errors import UserError
from vislang.example import Example
from vislang.metrics.figure import SCHEMA

if TYPE_CHECKING:
    from vislang.search.query import Query, Results

HEADINGS = {"similarity": "score", "probability": "probability", "log_likelihood": "log-likelihood per token"}
"""Headings of the scores by their kind."""


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
    from vislang.search.query import RERANKED, Searcher, new_marks
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
    return _reranked(rerank, query, results, count, device) if rerank and results.found else results


def _reranked(source: str, query: Query, results: Results, count: int, device: str) -> Results:
    """The best of the results by another model, with its scores.

    Raises:
        UserError: the model cannot compare the query with images.
    """
    from vislang.models.loading import load
    from vislang.search.relevance import NotComparable, relevance
    from vislang.train.device import device_of

    model: Any = load(source, device_of(device))
    documents = [found.document for found in results.found]
    with reporting("reading images") as report:
        model.prepare([Example(document.name, document) for document in documents], report)
    try:
        with reporting("ranking again") as report:
            *_, scores = relevance(model, source, query.document, documents, report)
    except NotComparable:
        raise UserError(
            f"--rerank {source}: a {type(model).__name__} cannot compare "
            f"{'a text' if query.image is None else 'an image'} with images. Give a dual encoder, for example."
        ) from None
    return results.in_order_of(scores, count)


def show(folder: Path, query: Query, results: Results, as_json: bool) -> None:
    """Print results as a table, or as one JSON object."""
    if as_json:
        asked = {"text": query.text} if query.image is None else {"image": query.image.name}
        images = [{"image": str(found.path), "score": round(found.score, 4)} for found in results.found]
        values = {"schema": SCHEMA, **asked, "marks": results.marks, "ended": results.ended}
        print(json.dumps({**values, "score_kind": results.kind, "images": images}))
        return
    corrected = f", corrected by {results.marks} marks" if results.marks else ""
    table = Table(title=f"{query.title} in {folder}{corrected}", title_justify="left")
    table.add_column(HEADINGS[results.kind], justify="right")
    table.add_column("image", overflow="fold")
    for found in results.found:
        table.add_row(f"{found.score:.4f}", str(found.path))
    console.print(table)
    if results.ended:
        console.print("Nothing more here: by your marks, all other images are probably wrong.")
