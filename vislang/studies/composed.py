"""What can be had from the composed sets without solving them: guesses, the words alone, images alone, similar images.

    python -m vislang.studies.composed --share 0.15 --test-share 0.5 --out docs/results/composed

The baselines learn from the training split, choose their settings on the validation split, and are scored on the test
split. Image features are those of EfficientNet-Lite0 with ImageNet weights, the mean and the maximum over its grid.
Nothing is drawn at random.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vislang.console import console
from vislang.data.sets import moods, reasons, walks
from vislang.data.sets.things import KINDS, SHARES, Things
from vislang.document import Document, Image
from vislang.example import Choice, Example, Label, Prediction
from vislang.metrics.figure import figures_as_json, metric, show
from vislang.models.regions.readers import RegionsConfig
from vislang.program import run_program
from vislang.studies.line import mean_line
from vislang.studies.results import Results
from vislang.tasks.catalogue import open_task
from vislang.tasks.task import Task

STRENGTHS = (10.0, 100.0, 1000.0, 10_000.0)
"""Penalties of ridge regressions to choose from."""

WEIGHTS = (0.01, 0.1, 1.0)
"""Weights of the loss of logistic regressions to choose from, against their penalty."""

MARGINS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Distances from the most likely kind to choose from."""

NEAREST = 10
"""Training images that are most similar to an image of the test."""

Answers = Mapping[str, list[Any]]
"""The answers to the test examples, by the name of a baseline."""


class Read:
    """A composed set with the features of its images.

    Args:
        name: of the set.
        image_size: the side of the square that images are resized to before their features are computed.
        share: of the images of the training and validation splits that is read; the words of the training split are
            read whole.
        test_share: of the test split that is read.
    """

    def __init__(self, name: str, image_size: int, share: float = 1.0, test_share: float = 1.0):
        self.task: Task = open_task(name)
        self.all_train = self.task.examples("train")
        self.train, self.val = (first_groups(own, share) for own in (self.all_train, self.task.examples("val")))
        self.test = first_groups(self.task.examples("test"), test_share)
        self._reader = RegionsConfig(image_size=image_size).open()
        self._known: dict[Image, np.ndarray] = {}

    def features(self, images: Sequence[Image]) -> np.ndarray:
        """(images, width) features."""
        for image in images:
            if image not in self._known:
                self._known[image] = self.vector(image)
        return np.stack([self._known[image] for image in images])

    def vector(self, image: Image) -> np.ndarray:
        """(width,) the features of an image."""
        (regions,) = self._reader.read([image])
        return np.concatenate([regions.features.mean(axis=0), regions.features.max(axis=0)])


def shared_pictures() -> int:
    """How many pictures, by their content, the sets have in more than one split."""
    splits: dict[str, set[str]] = {}
    for split in SHARES:
        things = Things(split)
        for picture in [*things.people, *(own for kind in KINDS for own in things.of(kind))]:
            splits.setdefault(picture.image.content_hash, set()).add(split)
    return sum(len(own) > 1 for own in splits.values())


def first_groups(examples: Sequence[Example], share: float) -> list[Example]:
    """The examples of a share of the groups (scenes, maps or posts), the first ones."""
    groups = list(dict.fromkeys(example.group for example in examples))
    kept = set(groups[: math.ceil(share * len(groups))])
    return [example for example in examples if example.group in kept]


def run(out: Path, share: float = 1.0, test_share: float = 1.0, sets: Sequence[str] = ()) -> None:
    """Score all baselines of sets, by default of all; write ``results.json`` and ``table.md``."""
    results = Results(out, share=share, test_share=test_share, shared_pictures=shared_pictures())
    for name in sets or SETS:
        image_size, baselines = SETS[name]
        read = Read(name, image_size, share, test_share)
        choices = isinstance(read.test[0].target, Choice)
        answers = {f"most frequent {'position' if choices else 'label'}": _most_frequent(read), **baselines(read)}
        figures = read.task.guesses([], read.test) if choices else {}
        for baseline, own in answers.items():
            predictions = [Prediction(example.id, answer) for example, answer in zip(read.test, own, strict=True)]
            figures[baseline] = read.task.score(read.test, predictions)
            main = read.task.metrics[0]
            console.print(f"{name}, {baseline}: {metric(main).title} {show(main, figures[baseline][main])}")
        results.forget(set=name)
        results.add(
            *({"set": name, "baseline": baseline, "figures": figures_as_json(own)} for baseline, own in figures.items())
        )
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for each set."""
    parts = []
    for name in SETS:
        own = [row for row in rows if row["set"] == name]
        if not own:
            continue
        metrics = METRICS[name]
        lines = [
            f"| {name} | {' | '.join(metric(each).title for each in metrics)} |",
            f"|{'---|' * (len(metrics) + 1)}",
        ]
        for row in own:
            cells = [str(mean_line([row], each)) if each in row["figures"] else "" for each in metrics]
            lines.append(f"| {row['baseline']} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


METRICS = {
    reasons.NAME: ("q_to_a", "qa_to_r", "q_to_ar"),
    walks.NAME: ("success_rate", "spl", "ndtw"),
    moods.NAME: ("accuracy", "weighted_f1", "macro_f1"),
}
"""The metrics in the table of each set."""


def _most_frequent(read: Read) -> list[Any]:
    """The most frequent position of the right choice, or the most frequent label, in training."""
    targets = [_answer(example) for example in read.train]
    return [Counter(targets).most_common(1)[0][0]] * len(read.test)


def _answer(example: Example) -> Any:
    target = example.target
    assert isinstance(target, Choice | Label)
    return target.index if isinstance(target, Choice) else target.name


# Scenes with reasons


def of_reasons(read: Read) -> Answers:
    """Baselines of choices in words."""
    return {
        "longest choice": [_longest(example) for example in read.test],
        "words alone": words_alone(read.all_train, read.val, read.test),
        **without_the_question(read),
    }


def _longest(example: Example) -> int:
    lengths = [len(_words(choice)) for choice in example.choices]
    return lengths.index(max(lengths))


def words_alone(train: Sequence[Example], val: Sequence[Example], test: Sequence[Example]) -> list[int]:
    """Logistic regression on whether a choice is right: its words, pairs of neighbouring words, pairs of a word of the
    question and one of the choice, its length and its position."""
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import LogisticRegression

    hasher = FeatureHasher(2**16, input_type="string")

    def read(examples: Sequence[Example]) -> Any:
        return hasher.transform(_features(example, index) for example in examples for index in range(4))

    right = np.array([index == _answer(example) for example in train for index in range(4)])
    learned, chosen, asked = read(train), read(val), read(test)

    def predicted(weight: float, rows: Any) -> np.ndarray:
        model = LogisticRegression(C=weight, solver="liblinear").fit(learned, right)
        return model.decision_function(rows).reshape(-1, 4).argmax(axis=1)

    truth = np.array([_answer(example) for example in val])
    best = max(WEIGHTS, key=lambda weight: float((predicted(weight, chosen) == truth).mean()))
    return predicted(best, asked).tolist()


def _features(example: Example, index: int) -> list[str]:
    question, choice = example.text.split(), _words(example.choices[index]).split()
    return [
        *(f"word {word}" for word in choice),
        *(f"two {one} {two}" for one, two in pairwise(choice)),
        *(f"pair {one} {two}" for one in set(question) for two in set(choice)),
        f"length {len(choice)}",
        f"position {index}",
    ]


def _words(choice: Document) -> str:
    return " ".join(part for part in choice.parts if isinstance(part, str))


def without_the_question(read: Read) -> Answers:
    """The choice whose text is right most often in similar images, or by ridge regression from the image; neither
    reads the question."""
    from sklearn.linear_model import Ridge

    texts = {text: n for n, text in enumerate(sorted({_words(c) for e in read.train for c in e.choices}))}
    images = list(dict.fromkeys(_image(example) for example in read.train))
    row_of = {image: n for n, image in enumerate(images)}
    # What a choice is worth in an image: more than on average where it is right, less where it is wrong.
    worth = np.zeros((len(images), len(texts)), dtype=np.float32)
    for example in read.train:
        for index, choice in enumerate(example.choices):
            worth[row_of[_image(example)], texts[_words(choice)]] += (index == _answer(example)) - 0.25
    learned = read.features(images)
    mean, std = learned.mean(axis=0), learned.std(axis=0) + 1e-6
    learned = (learned - mean) / std

    def choices(examples: Sequence[Example], scores: Callable[[np.ndarray], np.ndarray]) -> list[int]:
        found = scores((read.features([_image(example) for example in examples]) - mean) / std)
        return [
            int(np.argmax([own[texts[_words(choice)]] if _words(choice) in texts else 0 for choice in example.choices]))
            for example, own in zip(examples, found, strict=True)
        ]

    def similar(asked: np.ndarray) -> np.ndarray:
        unit = learned / np.linalg.norm(learned, axis=1, keepdims=True)
        near = np.argsort(-(asked @ unit.T), axis=1, kind="stable")[:, :NEAREST]
        return worth[near].mean(axis=1)

    def right(strength: float) -> float:
        found = choices(read.val, Ridge(alpha=strength).fit(learned, worth).predict)
        return sum(own == _answer(example) for own, example in zip(found, read.val, strict=True)) / len(found)

    best = Ridge(alpha=max(STRENGTHS, key=right)).fit(learned, worth)
    return {
        "image alone, without the question": choices(read.test, best.predict),
        "most similar images": choices(read.test, similar),
    }


def _image(example: Example) -> Image:
    image = example.prompt.media[0]
    assert isinstance(image, Image)
    return image


# Walks on maps


def of_walks(read: Read) -> Answers:
    """Baselines of paths of images. The words alone say nothing, because all choices are images."""
    from sklearn.linear_model import RidgeClassifierCV

    learned = [example for example in read.train if example.id.endswith("_0")]
    right = np.array([index == _answer(example) for example in learned for index in range(len(example.choices))])
    alone = RidgeClassifierCV(STRENGTHS).fit(_paths(read, learned), right)
    places = [image for example in read.train for image in _places(example.choices[_answer(example)])]
    kinds = [kind for example in read.train for kind in described(example.text)]
    probe = RidgeClassifierCV(STRENGTHS).fit(read.features(places), kinds)
    class_of = {kind: n for n, kind in enumerate(probe.classes_)}
    found: dict[str, list[int]] = {
        "images alone, without the instruction": [],
        "last thing": [],
        "things in any order": [],
    }
    found["things in their order"] = []
    for example in read.test:
        # The last column is for kinds that are on no path of the training split.
        wanted = [class_of.get(kind, -1) for kind in described(example.text)]
        # (candidates, places, kinds)
        seen = np.stack([probe.decision_function(read.features(_places(own))) for own in example.choices])
        seen = np.pad(seen, ((0, 0), (0, 0), (0, 1)))
        scores = {
            "images alone, without the instruction": alone.decision_function(_paths(read, [example])),
            "last thing": seen[:, -1, wanted[-1]],
            "things in any order": sum(seen[:, :, kind].max(axis=1) for kind in wanted),
            "things in their order": sum(seen[:, step, kind] for step, kind in enumerate(wanted)),
        }
        for name, own in scores.items():
            found[name].append(int(np.argmax(own)))
    return found


def described(instruction: str) -> list[str]:
    """The kinds of things on a path, in their order, from one of the three instructions for it."""
    for wording in walks.WORDINGS:
        pattern = re.sub(r"\\{(\d)\\}", r"(?P<n\1>.+)", re.escape(wording))
        if match := re.fullmatch(pattern, instruction):
            return [match[f"n{step}"] for step in range(walks.STEPS)]
    raise ValueError(f"{instruction!r}: is not one of the wordings.")


def _places(path: Document) -> list[Image]:
    """The images of a path after its start."""
    return [medium for medium in path.media[1:] if isinstance(medium, Image)]


def _paths(read: Read, examples: Sequence[Example]) -> np.ndarray:
    """(candidates of all examples, width) the features of the places of each path, one after the other."""
    return np.stack([read.features(_places(choice)).ravel() for example in examples for choice in example.choices])


# Posts with a picture


def of_moods(read: Read) -> Answers:
    """Baselines of labels for words and a picture."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import RidgeClassifierCV

    counter = CountVectorizer(ngram_range=(1, 3), binary=True)
    counter.fit(example.text for example in read.all_train)

    def words(examples: Sequence[Example]) -> np.ndarray:
        return counter.transform([example.text for example in examples]).toarray().astype(np.float32)

    labels = [_answer(example) for example in read.train]
    alone = RidgeClassifierCV(STRENGTHS).fit(words(read.all_train), list(map(_answer, read.all_train)))

    learned = read.features([_image(example) for example in read.train])
    mean, std = learned.mean(axis=0), learned.std(axis=0) + 1e-6

    def picture(examples: Sequence[Example]) -> np.ndarray:
        return (read.features([_image(example) for example in examples]) - mean) / std

    def both(examples: Sequence[Example]) -> np.ndarray:
        # Words count as much as a few hundred features of the picture.
        return np.concatenate([10 * words(examples), picture(examples)], axis=1)

    unit = [own / np.linalg.norm(own, axis=1, keepdims=True) for own in (picture(read.test), picture(read.train))]
    nearest = (unit[0] @ unit[1].T).argmax(axis=1)
    found: dict[str, list[str]] = {
        name: RidgeClassifierCV(STRENGTHS).fit(of(read.train), labels).predict(of(read.test)).tolist()
        for name, of in (("picture alone", picture), ("words and picture, added", both))
    }
    similar = [labels[index] for index in nearest]
    return {
        "words alone": alone.predict(words(read.test)).tolist(),
        **found,
        "most similar picture": similar,
        "kind and sign": kind_and_sign(read, picture),
    }


def kind_and_sign(read: Read, picture: Callable[[Sequence[Example]], np.ndarray]) -> list[str]:
    """The rules of the set, with two probes of the picture: which kind it shows, and whether it is crossed out.

    The probes learn from posts that are not neutral, whose words and label tell both. A post is neutral if the kind in
    its words is too far from the most likely one; how far is chosen on the validation split.
    """
    from sklearn.linear_model import RidgeClassifierCV

    known = [example for example in read.train if _answer(example) != "neutral"]
    features, told = picture(known), [said(example.text) for example in known]
    kinds = RidgeClassifierCV(STRENGTHS).fit(features, [kind for kind, _ in told])
    gone = [liked != (_answer(own) == "positive") for own, (_, liked) in zip(known, told, strict=True)]
    signs = RidgeClassifierCV(STRENGTHS).fit(features, gone)
    class_of = {kind: n for n, kind in enumerate(kinds.classes_)}

    def labels(examples: Sequence[Example], margin: float) -> list[str]:
        seen = picture(examples)
        found = []
        for example, scores, away in zip(examples, kinds.decision_function(seen), signs.predict(seen), strict=True):
            kind, liked = said(example.text)
            own = scores[class_of[kind]] if kind in class_of else -np.inf
            found.append("neutral" if own < scores.max() - margin else "positive" if liked != away else "negative")
        return found

    def right(margin: float) -> int:
        return sum(own == _answer(example) for own, example in zip(labels(read.val, margin), read.val, strict=True))

    return labels(read.test, max(MARGINS, key=right))


def said(text: str) -> tuple[str, bool]:
    """The kind of thing that the words of a post are about, and whether it is liked."""
    for wordings, liked in ((moods.LIKES, True), (moods.DISLIKES, False)):
        for wording in wordings:
            if match := re.fullmatch(re.escape(wording).replace(r"\{\}", "(.+)"), text):
                return match[1], liked
    raise ValueError(f"{text!r}: is not one of the wordings.")


SETS: dict[str, tuple[int, Callable[[Read], Answers]]] = {
    reasons.NAME: (128, of_reasons),
    walks.NAME: (96, of_walks),
    moods.NAME: (96, of_moods),
}
"""The sets with the size of their images and their baselines."""


def main() -> None:
    """Run the study with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/studies/composed"), help="folder of the results")
    parser.add_argument("--share", type=float, default=1.0, help="share of the training images to read")
    parser.add_argument("--test-share", type=float, default=1.0, help="share of the test split to read")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="the sets to measure")
    options = parser.parse_args()
    run(options.out, options.share, options.test_share, options.sets)


if __name__ == "__main__":
    sys.exit(run_program(main))
