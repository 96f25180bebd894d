"""Search in an index that ``vislang index`` made, by a text or an image; with marks, and with a second model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.capabilities import Embeds, Matches, Ranks
from vislang.console import console, messages, reporting
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.metrics.figure import SCHEMA

RERANKED = 50
"""Results that a second model ranks again, or as many as are asked for, if they are more."""


@dataclass(frozen=True)
class Query:
    """What is searched for: a text or an image."""

    text: str | None = None
    image: Image | None = None

    @property
    def key(self) -> str:
        """What marks are kept under: the text, or the hash of the image."""
        return self.text if self.image is None else f"image:{self.image.content_hash}"  # type: ignore[return-value]

    @property
    def title(self) -> str:
        """The query in messages."""
        return f'"{self.text}"' if self.image is None else self.image.name


@dataclass(frozen=True)
class Found:
    """A result: its path, and its score; after marks, a probability."""

    path: Path
    score: float


@dataclass(frozen=True)
class Results:
    """Results, the best first.

    Attributes:
        found: which.
        marks: number of marks that the search was corrected by.
        ended: whether results ended before as many as were asked for, since all others are probably wrong.
    """

    found: list[Found]
    marks: int = 0
    ended: bool = False


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
    import numpy as np

    from vislang.search.build import must_be_of
    from vislang.search.corrections import correct, spread
    from vislang.search.embedder import open_embedder
    from vislang.search.index import Index
    from vislang.search.marks import add_marks, forget_marks, mark_of, read_marks, rows_of
    from vislang.search.nearest import search
    from vislang.train.device import device_of

    index = Index(folder)
    if query.image is not None:
        query.image.decode()
    new = [
        mark_of(index, query.key, Path(path), good) for paths, good in ((right, True), (wrong, False)) for path in paths
    ]
    if twice := {mark.name for mark in new if mark.right} & {mark.name for mark in new if not mark.right}:
        raise UserError(f"{min(twice)}: marked as right and as wrong. Mark it once.")
    embedder = open_embedder(model or index.model["source"], device_of(device))
    must_be_of(index, embedder)
    vector = embedder.text(query.text) if query.text is not None else embedder.images([query.image])[0]  # type: ignore[list-item]
    if forget:
        forget_marks(index, query.key)
    if new:
        add_marks(index, new)
    rows, good = rows_of(index, read_marks(index, query.key))
    wanted = max(count, RERANKED) if rerank else count

    def note(text: str) -> None:
        messages.print(f"note: {text}", markup=False)

    if not rows:
        numbers, scores = search(index, vector, wanted, exact, note)
        shown, ended = numbers, False
    else:
        fitted = correct(vector, index.vectors[rows], np.array(good), index.vectors[spread(index.count)])
        numbers, products = search(index, fitted.vector, wanted, exact, note)
        scores = fitted.probabilities(products)
        shown = numbers[scores >= fitted.cutoff]
        ended = len(shown) < len(numbers)
    results = [Found(index.image(row), float(score)) for row, score in zip(index.rows(shown), scores, strict=False)]
    if gone := [found for found in results if not found.path.is_file()]:
        note(f"{len(gone)} of the results are no longer there. Run vislang index {index.images} -o {folder}")
        results = [found for found in results if found not in gone]
    if rerank and results:
        results = _reranked(rerank, query, results, device)
    return Results(results[:count], len(rows), ended)


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
    again = [Found(found.path, score) for found, score in zip(results, scores, strict=True)]
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
