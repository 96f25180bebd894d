"""Image-text retrieval, also of Flickr30k and MS COCO in Karpathy's split."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from vislang.data.fields import id_field, list_field, text_field
from vislang.data.problems import DataError
from vislang.data.split import draw
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Choice, Example, Prediction, Text, prediction_from
from vislang.metrics import by_kind
from vislang.metrics.figure import Figures
from vislang.metrics.items import Items
from vislang.metrics.retrieval import METRICS, belonging, ranks, recalls_at
from vislang.tasks.files import image_in, keyed, listed, one_file, read_json
from vislang.tasks.task import Reader, ReadTask, split_named


class Retrieval(ReadTask):
    """Find the image of a text among all images, and a text of an image among all texts.

    The examples are pairs: an image as the prompt, and its texts as the target. A model scores each image with each
    text; :meth:`ranked` turns the scores into predictions.

    Args:
        name, about: see :class:`~vislang.tasks.task.Task`.
        read: a reader for each split.
        default_split: the split that is evaluated by default.
    """

    def __init__(self, name: str, about: str, read: Mapping[str, Reader], default_split: str):
        support = "train" if "train" in read else None
        super().__init__(name, about, "pairs", {"image", "text"}, read, default_split, support)
        self.metrics = METRICS

    def ids(self, examples: Sequence[Example]) -> list[str]:
        """``text N`` and ``image N``, numbered from 0 in the order of :func:`sides`."""
        images, texts, _ = sides(examples)
        return [*(f"text {n}" for n in range(len(texts))), *(f"image {n}" for n in range(len(images)))]

    def ranked(self, examples: Sequence[Example], scores: Float[np.ndarray, "images texts"]) -> list[Prediction]:
        """Predictions: for each text the rank of its image, then for each image the rank of its best text.

        Args:
            examples: pairs.
            scores: scores of images and texts in the order of :func:`sides`, higher is better; minus infinity for pairs
                that were not scored.

        Raises:
            UserError: a score is not a number.
        """
        images, texts, image_of = sides(examples)
        of_texts, of_images = ranks(scores, belonging(texts, image_of, len(images)))
        answers = [*of_texts.tolist(), *of_images.tolist()]
        return [Prediction(name, rank) for name, rank in zip(self.ids(examples), answers, strict=True)]

    def prediction_reader(self, examples: Sequence[Example]) -> Callable[[Mapping[str, Any]], Prediction]:
        """See :meth:`~vislang.tasks.task.Task.prediction_reader`; a rank is at most the number of candidates."""
        images, texts, _ = sides(examples)
        candidates = {"text": len(images), "image": len(texts)}

        def read(record: Mapping[str, Any]) -> Prediction:
            prediction = prediction_from(record)
            by_kind.must_answer(prediction, "pairs")
            most = candidates.get(prediction.id.partition(" ")[0], math.inf)
            if prediction.answer > most:  # type: ignore[operator]
                raise UserError(f"prediction {prediction.id}: {prediction.answer} is not a rank among {most}.")
            return prediction

        return read

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """Recall at 1, 5 and 10 in both directions, from the ranks."""
        found: dict[str, list[int]] = {"text": [], "image": []}
        for prediction in predictions:
            by_kind.must_answer(prediction, "pairs")
            found[prediction.id.partition(" ")[0]].append(prediction.answer)  # type: ignore[arg-type]
        return recalls_at(found["text"], found["image"])

    def score_each(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Items:
        """Whether each text's image, and a text of each image, is ranked first."""
        first = np.array([prediction.answer == 1 for prediction in predictions])
        return Items("recall_at_1", first.astype(float), first)

    def clusters(self, examples: Sequence[Example]) -> list[str]:
        """The image of each text, then each image."""
        images, _, image_of = sides(examples)
        keys = [image.content_hash if image.is_there else image.name for image in images]
        return [*(keys[number] for number in image_of), *keys]

    def subset(self, examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
        """At most ``limit`` random images (0: all), with all their texts."""
        images, _, _ = sides(examples)
        if not limit or limit >= len(images):
            return list(examples)
        kept = {images[number] for number in draw(range(len(images)), limit, seed)}
        return [example for example in examples if _image(example) in kept]

    def guesses(self, support: Sequence[Example], examples: Sequence[Example]) -> dict[str, Figures]:
        """None: ranks cannot be guessed."""
        return {}


def karpathy(folder: Path, split: str | None = None) -> list[Example]:
    """A split of a folder in Karpathy's format, see :func:`karpathy_splits`; without a name, the one to train on, or
    the first one.

    Raises:
        DataError: the file is missing or has another format, or there is no such split.
    """
    splits = karpathy_splits(folder)
    if split is None:
        return splits.get("train", next(iter(splits.values())))
    return splits[split_named(split, tuple(splits), str(folder))]


def karpathy_splits(
    folder: Path, pattern: str = "dataset*.json", key: str = "filename", task: str = ""
) -> dict[str, list[Example]]:
    """``dataset_flickr30k.json`` or ``dataset_coco.json`` by split: an example for each image, its captions as the
    target. COCO's ``restval`` belongs to ``train``.

    Args:
        folder: folder with the file and the images.
        pattern: name of the file.
        key: the field that identifies an image.
        task: the task of the examples.

    Raises:
        DataError: the file is missing or has another format.
    """
    path = one_file(folder, pattern)

    def read(record: Mapping[str, Any]) -> tuple[str, tuple[str, Example]]:
        file, split, name = text_field(record, "filename"), text_field(record, "split"), id_field(record, key)
        place = text_field(record, "filepath") if "filepath" in record else ""
        captions = tuple(text_field(sentence, "raw") for sentence in list_field(record, "sentences"))
        source = f"{path.name}, {file}"
        prompt = Document([image_in(folder, file, f"{place}/{file}")], name=source)
        return name, (split, Example(name, prompt, Text(captions), source=source, task=task))

    found: dict[str, list[Example]] = {}
    for split, example in keyed(path, listed(path, read_json(path), "images"), read).values():
        found.setdefault("train" if split == "restval" else split, []).append(example)
    return found


def sides(examples: Sequence[Example]) -> tuple[list[Image], list[str], list[int]]:
    """The distinct images of pairs, their texts, and for each text the index of its image."""
    images: dict[Image, int] = {}
    texts: list[str] = []
    image_of: list[int] = []
    for example in examples:
        number = images.setdefault(_image(example), len(images))
        assert isinstance(example.target, Text)
        texts += example.target.references
        image_of += [number] * len(example.target.references)
    return list(images), texts, image_of


def is_pair(example: Example) -> bool:
    """Whether an example is one image with its texts."""
    media = example.media
    return isinstance(example.target, Text) and len(media) == 1 and isinstance(media[0], Image) and not example.text


def must_be_pairs(examples: Sequence[Example]) -> None:
    """Raise an error if examples are not pairs.

    Raises:
        DataError: one is not; the message names it.
    """
    for example in examples:
        if not is_pair(example):
            raise DataError(f'{example.name}: not a pair. Records are {{"image": path, "text": caption}}.')


def must_be_captions(examples: Sequence[Example]) -> None:
    """Raise where examples are not an image, a video or a recording with its texts, and nothing else.

    Raises:
        DataError: one is not; the message names it.
    """
    for example in examples:
        if len(example.media) != 1 or example.text or not isinstance(example.target, Text):
            raise DataError(f'{example.name}: not a caption. Each record is {{"image": path, "text": its caption}}.')


def _image(example: Example) -> Image:
    (image,) = example.prompt.media
    assert isinstance(image, Image)
    return image


def shortlist(scores: Float[np.ndarray, "images texts"], count: int) -> Bool[np.ndarray, "images texts"]:
    """True for the ``count`` best images of each text and the ``count`` best texts of each image."""
    chosen = np.zeros(scores.shape, dtype=bool)
    for axis in (0, 1):
        kept = min(count, scores.shape[axis])
        best = np.argpartition(-scores, kept - 1, axis=axis).take(range(kept), axis=axis)
        np.put_along_axis(chosen, best, True, axis=axis)
    return chosen


def four_way(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Turn each pair into a choice among four pairs, as ViLBERT does (Lu et al. 2019, section 3.2).

    The wrong pairs have another caption, another image, and a hard negative: the caption of an image whose caption
    shares the rarest word with the correct one. Pairs without such negatives are left out. Negatives are drawn from the
    given examples; called after a split, it never mixes training and held-out data.

    Args:
        examples: pairs; each text becomes an example with an empty prompt and choices of image and text. Other examples
            are returned unchanged.
        seed: random seed.
    """
    pairs = [example for example in examples if is_pair(example)]
    completed = iter(_completed(pairs, seed))
    found: list[Example | None] = []
    for example in examples:
        if isinstance(example.target, Text) and is_pair(example):
            found += [next(completed) for _ in example.target.references]
        else:
            found.append(example)
    return [example for example in found if example is not None]


def _completed(pairs: Sequence[Example], seed: int) -> list[Example | None]:
    """For each text of each pair a choice among four; None without negatives."""
    images, texts, image_of = sides(pairs)
    owners = [(pair, n) for pair in pairs for n in range(len(pair.target.references))]  # type: ignore[union-attr]
    captions: dict[int, set[str]] = {}
    for text, image in zip(texts, image_of, strict=True):
        captions.setdefault(image, set()).add(text.lower())
    words = [set(text.lower().split()) for text in texts]
    having: dict[str, list[int]] = {}
    for number, own in enumerate(words):
        for word in own:
            having.setdefault(word, []).append(number)
    found: list[Example | None] = []
    for number, (text, image) in enumerate(zip(texts, image_of, strict=True)):
        rng = random.Random(f"{seed} {number}")

        def other(
            numbers: Sequence[int], image: int = image, own: str = text.lower(), rng: random.Random = rng
        ) -> int | None:
            """Another caption that is not one of this image's, of an image that does not have this caption."""
            for _ in range(20):
                drawn = numbers[rng.randrange(len(numbers))]
                if texts[drawn].lower() not in captions[image] and own not in captions[image_of[drawn]]:
                    return drawn
            return None

        everything = range(len(texts))
        random_text, random_image = other(everything), other(everything)
        hard = None
        for word in sorted(words[number], key=lambda word: (len(having[word]), word)):
            hard = other(having[word]) if len(having[word]) > 1 else None
            if hard is not None:
                break
        hard = random_text if hard is None else hard
        if random_text is None or random_image is None or hard is None:
            found.append(None)
            continue
        four = [
            (images[image], text),
            (images[image], texts[random_text]),
            (images[image_of[random_image]], text),
            (images[image], texts[hard]),
        ]
        # In a random position: a model that cannot distinguish them is correct in a quarter of the cases.
        index = rng.randrange(len(four))
        four[0], four[index] = four[index], four[0]
        example, n = owners[number]
        name = example.id if len(example.target.references) == 1 else f"{example.id} {n}"  # type: ignore[union-attr]
        choices = tuple(Document(pair, name=example.name) for pair in four)
        prompt = Document([], name=example.name)
        found.append(replace(example, id=name, prompt=prompt, target=Choice(index), choices=choices))
    return found
