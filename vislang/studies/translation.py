"""Does the image help to translate a short caption, above all where its words are ambiguous?

    python -m vislang.studies.translation --out docs/results/translation

A caption gets the translation of the most similar caption of the training split in each language. There are three arms,
with equal records: captions are compared by their words, their images are compared, or both, with a weight that is
chosen on the validation split. Texts are compared by their words and parts of words (TF-IDF), images by the features of
EfficientNet-Lite0 with ImageNet weights. No network is trained.

The captions are scored as they are, and without their last noun, where the text does not say what is shown (as in
Caglayan et al. 2019). A caption is ambiguous if WordNet has senses of its last noun in two or more classes of concrete
things, such as "mouse": an animal and an artifact. Intervals are 95 %, by the bootstrap over captions.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vislang.console import console
from vislang.data.fetch import ENGLISH, fetch
from vislang.data.sets.translations import Captioned, captioned_stamps, named_emoji
from vislang.metrics.figure import Figure, figures_as_json, figures_from_json, show, show_difference
from vislang.metrics.paired import bootstrap_difference
from vislang.metrics.translation import sentence_chrf
from vislang.program import run_program
from vislang.studies.results import Results
from vislang.studies.retrieval import normalised
from vislang.studies.tower import mean_features

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Weights of the image to choose from; 0 is the text alone, and 1 the image alone."""

TEXT, IMAGE, BOTH, COPY = "text", "image", "image and text", "English text, copied"

CONDITIONS = ("whole captions", "captions without their last noun")

SUBSETS = ("all", "ambiguous", "not ambiguous")

CONCRETE = {5: "animal", 6: "artifact", 8: "body", 13: "food", 17: "object", 18: "person", 20: "plant", 27: "substance"}
"""WordNet's classes of concrete nouns, by the numbers of its lexicographer files."""


@dataclass
class Side:
    """The captions of a split.

    Attributes:
        items: images with captions.
        texts: what is read of each caption.
        features: (items, width) of the images.
    """

    items: list[Captioned]
    texts: list[str]
    features: np.ndarray


class Nearest:
    """Finds the most similar training captions.

    Args:
        train: the training captions.
    """

    def __init__(self, train: Side):
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union

        self.train = train
        self.words = make_union(TfidfVectorizer(), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)))
        self.learned = normalised(self.words.fit_transform(train.texts).toarray().astype(np.float32))
        self.mean, self.std = train.features.mean(axis=0), train.features.std(axis=0) + 1e-6

    @cached_property
    def images(self) -> np.ndarray:
        """(training items, width) standardised features of unit length."""
        return normalised((self.train.features - self.mean) / self.std)

    def similarities(self, asked: Side) -> tuple[np.ndarray, np.ndarray]:
        """(items, training items) similarities of texts, and of images."""
        texts = normalised(self.words.transform(asked.texts).toarray().astype(np.float32)) @ self.learned.T
        return texts, normalised((asked.features - self.mean) / self.std) @ self.images.T

    def translations(self, asked: Side, weight: float) -> list[dict[str, str]]:
        """The translation of each caption into each language that it has one of."""
        texts, images = self.similarities(asked)
        order = np.argsort(-((1 - weight) * texts + weight * images), axis=1, kind="stable")
        known = [item.translations for item in self.train.items]
        return [
            {code: next(known[near][code] for near in row if code in known[near]) for code in item.translations}
            for item, row in zip(asked.items, order, strict=True)
        ]


def run(out: Path) -> None:
    """Choose the weights, measure, and write ``results.json`` and ``table.md``."""
    if not ENGLISH.is_here:
        fetch(ENGLISH)
    classes = noun_classes()
    results = Results(out)
    results.rows.clear()
    for name, items in (("stamps", list(captioned_stamps())), ("emoji", list(named_emoji()))):
        features = mean_features([item.image for item in items])
        for condition in CONDITIONS:
            sides = {
                split: _side(
                    items, features, split, None if split == "train" or condition == CONDITIONS[0] else classes
                )
                for split in ("train", "val", "test")
            }
            results.add(*measured(name, condition, sides["train"], sides["val"], sides["test"], classes))
    results.write()
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def _side(items: Sequence[Captioned], features: np.ndarray, split: str, classes: Mapping[str, set[str]] | None) -> Side:
    """The captions of a split; with ``classes``, without their last nouns."""
    chosen = [number for number, item in enumerate(items) if item.split == split]
    own = [items[number] for number in chosen]
    texts = [item.english if classes is None else without_noun(item.english, classes) for item in own]
    return Side(own, texts, features[chosen])


def measured(
    name: str, condition: str, train: Side, val: Side, test: Side, classes: Mapping[str, set[str]]
) -> list[dict[str, Any]]:
    """The rows of a set: the mean chrF of each arm, and how much better both are than the text."""
    nearest = Nearest(train)
    validated = {weight: float(_scores(val.items, nearest.translations(val, weight)).mean()) for weight in WEIGHTS}
    chosen = max(WEIGHTS, key=lambda weight: validated[weight])
    scores = {
        arm: _scores(test.items, nearest.translations(test, weight))
        for arm, weight in ((TEXT, 0.0), (IMAGE, 1.0), (BOTH, chosen))
    }
    copied = [dict.fromkeys(item.translations, text) for item, text in zip(test.items, test.texts, strict=True)]
    scores[COPY] = _scores(test.items, copied)
    groups = np.array([item.group for item in test.items for _ in item.translations])
    unclear = np.array([is_ambiguous(item.english, classes) for item in test.items for _ in item.translations])
    rows = []
    for subset, rows_of in zip(SUBSETS, (np.ones_like(unclear), unclear, ~unclear), strict=True):
        if not rows_of.any():
            continue
        about = {"set": name, "condition": condition, "subset": subset, "captions": len(set(groups[rows_of]))}
        gain = bootstrap_difference((scores[BOTH] - scores[TEXT])[rows_of], groups[rows_of].tolist())
        for arm, own in scores.items():
            figures = figures_as_json({"chrf": bootstrap_difference(own[rows_of], groups[rows_of].tolist())})
            more = {"weight": chosen, "gain": figures_as_json({"chrf": gain})} if arm == BOTH else {}
            rows.append({**about, "arm": arm, "figures": figures, **more})
        console.print(f"{name}, {condition}, {subset}: {show_difference('chrf', gain)}")
    return rows


def _scores(items: Sequence[Captioned], translated: Sequence[Mapping[str, str]]) -> np.ndarray:
    """The chrF of each translation of each caption."""
    pairs = [
        (own[code], reference)
        for item, own in zip(items, translated, strict=True)
        for code, reference in item.translations.items()
    ]
    return sentence_chrf([own for own, _ in pairs], [reference for _, reference in pairs])


def noun_classes() -> dict[str, set[str]]:
    """The classes of concrete things in which WordNet has senses of each noun."""
    found: dict[str, set[str]] = defaultdict(set)
    path = ENGLISH.path("wordnet-base", "usr", "share", "wordnet", "data.noun")
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith(" "):
                # The licence.
                continue
            _, number, _, count, *rest = line.split(" ")
            for word in rest[: 2 * int(count, 16) : 2]:
                # Names of people and places begin with a capital letter.
                if int(number) in CONCRETE and word.islower():
                    found[word].add(CONCRETE[int(number)])
    return dict(found)


def last_noun(caption: str, classes: Mapping[str, set[str]]) -> str | None:
    """The last word of a caption that is a concrete noun, or its plural."""
    words = re.findall(r"[a-z]+", caption.lower())
    return next((word for word in reversed(words) if classes.get(_singular(word, classes))), None)


def _singular(word: str, classes: Mapping[str, set[str]]) -> str:
    """The word, or without the ending of a plural if only that is a noun."""
    for ending, put in (("", ""), ("ies", "y"), ("es", ""), ("s", "")):
        if word.endswith(ending) and classes.get(word.removesuffix(ending) + put):
            return word.removesuffix(ending) + put
    return word


def without_noun(caption: str, classes: Mapping[str, set[str]]) -> str:
    """A caption without its last noun."""
    noun = last_noun(caption, classes)
    if noun is None:
        return caption
    before, _, after = caption.lower().rpartition(noun)
    return f"{before}{after}"


def is_ambiguous(caption: str, classes: Mapping[str, set[str]]) -> bool:
    """Whether the last noun of a caption has senses in two or more classes of concrete things."""
    noun = last_noun(caption, classes)
    return noun is not None and len(classes[_singular(noun, classes)]) > 1


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for each set: the arms, and how much better both are than the text."""
    parts = []
    for name in dict.fromkeys(row["set"] for row in rows):
        heads = (COPY, TEXT, IMAGE, BOTH)
        lines = [f"| {name} | captions | {' | '.join(heads)} | both minus text |", f"|{'---|' * (len(heads) + 3)}"]
        for condition in CONDITIONS:
            for subset in SUBSETS:
                own = {
                    row["arm"]: row
                    for row in rows
                    if (row["set"], row["condition"], row["subset"]) == (name, condition, subset)
                }
                if not own:
                    continue
                cells = [_cell(own[arm]["figures"]) for arm in heads]
                gain = figures_from_json(own[BOTH]["gain"])["chrf"]
                lines.append(
                    f"| {condition}, {subset} | {own[BOTH]['captions']} | {' | '.join(cells)} | {_points(gain)} |"
                )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(figures: Mapping[str, Any]) -> str:
    return show("chrf", figures_from_json(figures)["chrf"]).replace(" %", "")


def _points(gain: Figure) -> str:
    assert gain.low is not None
    assert gain.high is not None
    return f"{100 * gain.value:+.1f} ({100 * gain.low:.1f} to {100 * gain.high:.1f})"


def main() -> None:
    """Run the study with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/studies/translation"), help="folder of the results")
    run(parser.parse_args().out)


if __name__ == "__main__":
    sys.exit(run_program(main))
