"""Image and text retrieval (Flickr30k and MS COCO in Karpathy's split): which image does a caption describe?"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vislang.case import Case, Choice
from vislang.data.jsonl import DataError
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.tasks.answers import Proportion, proportion
from vislang.tasks.official import each, image_in, listed, one_file, read_json

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Collection:
    """Images and what is said of them.

    Attributes:
        images: each once.
        texts: each with
        image_of: which image it describes.
    """

    images: list[Image]
    texts: list[str]
    image_of: list[int]


def karpathy(folder: Path, split: str) -> Collection:
    """A split of ``dataset_flickr30k.json`` or ``dataset_coco.json``; COCO's ``restval`` belongs to ``train``.

    Raises:
        DataError: the file is missing or of another format, or has no such split.
    """
    path = one_file(folder, "dataset*.json")
    wanted = {split, "restval"} if split == "train" else {split}

    def read(record: Mapping[str, Any]) -> tuple[str, Image, list[str]]:
        names = [record["filename"], f"{record.get('filepath', '')}/{record['filename']}"]
        return record["split"], image_in(folder, *names), [said["raw"] for said in record["sentences"]]

    records = [made for made in each(path, listed(path, read_json(path), "images"), read) if made[0] in wanted]
    if not records:
        raise DataError(f"{path}: no image of the split {split}.")
    return Collection(
        [image for _, image, _ in records],
        [text for _, _, texts in records for text in texts],
        [number for number, (_, _, texts) in enumerate(records) for _ in texts],
    )


def of_documents(documents: Sequence[Document]) -> Collection:
    """Documents of one image and one text each; images that several share are one."""
    images: dict[Image, int] = {}
    texts, image_of = [], []
    for document in documents:
        (image,) = (medium for medium in document.media if isinstance(medium, Image))
        texts.append(" ".join(part for part in document.parts if isinstance(part, str)))
        image_of.append(images.setdefault(image, len(images)))
    return Collection(list(images), texts, image_of)


def pairs_of(collection: Collection) -> list[Document]:
    """A document of one image and one text for each caption."""
    return [
        Document([collection.images[number], text], name=collection.images[number].name)
        for text, number in zip(collection.texts, collection.image_of, strict=True)
    ]


def recalls(scores: np.ndarray, collection: Collection) -> dict[str, Proportion]:
    """Recall at 1, 5 and 10 in both directions.

    A caption finds its image; an image finds any of its captions, the best of them. Captions that are the same words
    count as each other's. Ties go against the model: whatever scores as high as the right one is ranked before it.

    Args:
        scores: (images, texts), the higher the better.
        collection: what was scored.
    """
    right = np.zeros(scores.shape, dtype=bool)
    by_text: dict[str, set[int]] = {}
    for text, image in zip(collection.texts, collection.image_of, strict=True):
        by_text.setdefault(text.strip().lower(), set()).add(image)
    for number, text in enumerate(collection.texts):
        right[list(by_text[text.strip().lower()]), number] = True
    if np.isnan(scores).any():
        raise UserError("retrieval: scores are no numbers; the model's weights are bad.")
    found = {}
    for name, matrix, truth in (("text to image", scores.T, right.T), ("image to text", scores, right)):
        ranks = np.array([rank_of(row, known) for row, known in zip(matrix, truth, strict=True)])
        for limit in RANKS:
            found[f"R@{limit}, {name}"] = proportion(int((ranks <= limit).sum()), len(ranks))
    return found


def shortlist(scores: np.ndarray, count: int) -> np.ndarray:
    """True for each text's best images and each image's best texts, so many of each, by a faster model's scores.

    Args:
        scores: (images, texts).
        count: how many.
    """
    chosen = np.zeros(scores.shape, dtype=bool)
    for axis in (0, 1):
        kept = min(count, scores.shape[axis])
        best = np.argpartition(-scores, kept - 1, axis=axis).take(range(kept), axis=axis)
        np.put_along_axis(chosen, best, True, axis=axis)
    return chosen


def rank_of(scores: np.ndarray, right: np.ndarray) -> int:
    """The rank, from 1, of the best of the right ones; ties count as before it, and what was never scored as last."""
    best = scores[right].max()
    if np.isneginf(best):
        return len(scores)
    return int((scores[~right] >= best).sum()) + 1


def right_pair(document: Document, task: str = "retrieval") -> Case:
    """A case that so far has the right option alone; :func:`four_way` draws the wrong ones.

    They are drawn after a split, on each side among its own, so that nothing that is held out is learned from.
    """
    return Case(document.name, (document,), Choice(0), task, id=document.name)


def four_way(cases: Sequence[Case], seed: int = 0) -> list[Case]:
    """Cases as ViLBERT has them (Lu et al. 2019, section 3.2): of four pairs one belongs together.

    The wrong ones are another's caption, another image, and a hard one: the caption of a similar image, here of one
    whose caption shares the rarest word with the right one. A case to which nothing is wrong is left out.

    Args:
        cases: of one right option each, :func:`right_pair`; others stay as they are.
        seed: of what is drawn.
    """
    pairs = [case for case in cases if len(case.options) == 1 and isinstance(case.target, Choice)]
    completed = iter(_completed(pairs, seed))
    alone = {id(case) for case in pairs}
    found = [next(completed) if id(case) in alone else case for case in cases]
    return [case for case in found if case is not None]


def _completed(cases: Sequence[Case], seed: int) -> list[Case | None]:
    documents = [case.options[0] for case in cases]
    collection = of_documents(documents)
    said: dict[int, set[str]] = {}
    for text, image in zip(collection.texts, collection.image_of, strict=True):
        said.setdefault(image, set()).add(text.lower())
    words = [set(text.lower().split()) for text in collection.texts]
    having: dict[str, list[int]] = {}
    for number, own in enumerate(words):
        for word in own:
            having.setdefault(word, []).append(number)
    found: list[Case | None] = []
    for number, (case, document) in enumerate(zip(cases, documents, strict=True)):
        chance = random.Random(f"{seed} {number}")
        text, image = collection.texts[number], collection.image_of[number]

        def other(
            numbers: Sequence[int], image: int = image, own: str = text.lower(), chance: random.Random = chance
        ) -> int | None:
            """Another caption, that nobody gave to this image, of an image to which nobody gave this one's."""
            for _ in range(20):
                drawn = numbers[chance.randrange(len(numbers))]
                if collection.texts[drawn].lower() not in said[image] and own not in said[collection.image_of[drawn]]:
                    return drawn
            return None

        everything = range(len(collection.texts))
        random_text, random_image = other(everything), other(everything)
        hard = None
        for word in sorted(words[number], key=lambda word: len(having[word])):
            hard = other(having[word]) if len(having[word]) > 1 else None
            if hard is not None:
                break
        hard = random_text if hard is None else hard
        if random_text is None or random_image is None or hard is None:
            found.append(None)
            continue
        picture = collection.images[image]
        pairs = [
            (picture, text),
            (picture, collection.texts[random_text]),
            (collection.images[collection.image_of[random_image]], text),
            (picture, collection.texts[hard]),
        ]
        # Anywhere among the four: whoever cannot tell them apart is right in a quarter of the cases.
        place = chance.randrange(len(pairs))
        pairs[0], pairs[place] = pairs[place], pairs[0]
        options = tuple(Document(pair, name=document.name) for pair in pairs)
        found.append(replace(case, options=options, target=Choice(place)))
    return found
