"""A search in an index: by a text or an image, corrected by marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vislang import notebook
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.search.build import must_be_of
from vislang.search.corrections import correct, spread
from vislang.search.embedder import open_embedder
from vislang.search.index import Index
from vislang.search.marks import Mark, add_marks, forget_marks, mark_of, read_marks, rows_of
from vislang.search.nearest import search
from vislang.search.relevance import Kind, Relevance

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

    @property
    def document(self) -> Document:
        """The query as a document of one part."""
        part = self.text if self.image is None else self.image
        return Document([part or ""], name="the query" if self.image is None else self.image.name)


@dataclass(frozen=True)
class Found:
    """A result.

    Attributes:
        path: of the image.
        name: its path, relative to the indexed folder.
        score: see :attr:`Results.kind`.
        right: how it was marked; None if it was not.
    """

    path: Path
    name: str
    score: float
    right: bool | None = None

    @property
    def document(self) -> Document:
        """The image as a document."""
        return Document([Image(self.path)], name=self.name)


@dataclass(frozen=True)
class Results:
    """Results, the best first.

    Attributes:
        found: which.
        marks: number of marks that the search was corrected by.
        ended: whether results ended before as many as were asked for, since all others are probably wrong.
        kind: what the scores are.
    """

    found: list[Found]
    marks: int = 0
    ended: bool = False
    kind: Kind = "similarity"

    def in_order_of(self, relevance: Relevance, count: int) -> Results:
        """The best of these results by the scores of another model, one for each of :attr:`found`."""
        again = [replace(own, score=score) for own, score in zip(self.found, relevance.scores, strict=True)]
        again.sort(key=lambda own: -own.score)
        return replace(self, found=again[:count], kind=relevance.kind)

    def _repr_html_(self) -> str:
        """The images in a notebook, with their scores."""
        shown = [
            notebook.medium(own.name, Image(own.path).pictures, f"{own.score:.3f} {own.name}") for own in self.found
        ]
        return notebook.block(*(shown or [notebook.note("nothing found")]))


class Searcher:
    """An index whose model is open. Each search reads the index as it is then.

    Args:
        folder: the index.
        model: where its model is now; None opens it where it was.
        device: where it runs.

    Raises:
        UserError: the index is damaged, or the model is another one than that of the index.
    """

    def __init__(self, folder: Path, model: str | None = None, device: torch.device | str | None = None):
        index = Index(folder)
        self.folder = folder
        self.embedder = open_embedder(model or index.model["source"], device)
        must_be_of(index, self.embedder)

    def search(
        self,
        query: Query,
        count: int,
        right: Sequence[str] = (),
        wrong: Sequence[str] = (),
        forget: bool = False,
        exact: bool = False,
        note: Callable[[str], None] = lambda text: None,
    ) -> Results:
        """Search.

        Args:
            query: what is searched for.
            count: greatest number of results.
            right, wrong: images of the index that are marked; marks are kept with the index.
            forget: delete the marks of this query first.
            exact: compare all images, even if there is a graph.
            note: called with a message where something is left out.

        Raises:
            UserError: the index is damaged or of another model, a marked image is not in it, or the model cannot search
                by what is given.
        """
        index = Index(self.folder)
        must_be_of(index, self.embedder)
        new = new_marks(index, query, right, wrong)
        if query.text is not None:
            vector = self.embedder.text(query.text)
        else:
            assert query.image is not None
            (vector,) = self.embedder.images([query.image])
        if forget:
            forget_marks(index, query.key)
        if new:
            add_marks(index, new)
        marks = read_marks(index, query.key)
        rows, good = rows_of(index, marks)
        if not rows:
            numbers, scores = search(index, vector, count, exact, note)
            shown, ended = numbers, False
        else:
            fitted = correct(vector, index.vectors[rows], np.array(good), index.vectors[spread(index.count)])
            numbers, products = search(index, fitted.vector, count, exact, note)
            scores = fitted.probabilities(products)
            # What was marked as right stays, whatever the others say.
            known = np.isin(numbers, [row for row, own in zip(rows, good, strict=True) if own])
            shown, scores = (each[(scores >= fitted.cutoff) | known] for each in (numbers, scores))
            ended = len(shown) < len(numbers)
        marked = dict(zip(rows, good, strict=True))
        found = [
            Found(index.image(row), row.name, float(score), marked.get(int(number)))
            for number, row, score in zip(shown, index.rows(shown), scores, strict=True)
        ]
        if gone := [own for own in found if not own.path.is_file()]:
            note(f"{len(gone)} of the results are no longer there. Run vislang index {index.images} -o {self.folder}")
            found = [own for own in found if own not in gone]
        return Results(found, len(rows), ended, "probability" if rows else "similarity")


def new_marks(index: Index, query: Query, right: Sequence[str], wrong: Sequence[str]) -> list[Mark]:
    """Marks of images of an index.

    Raises:
        UserError: an image is not in the index, or is marked as right and as wrong.
    """
    given = ((right, True), (wrong, False))
    new = [mark_of(index, query.key, Path(path), good) for paths, good in given for path in paths]
    if twice := {mark.name for mark in new if mark.right} & {mark.name for mark in new if not mark.right}:
        raise UserError(f"{min(twice)}: marked as right and as wrong. Mark it once.")
    return new
