"""Paired comparison of two evaluations from their files: cards and predictions, without data or models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.evaluate.card import CARD, MATTERS, card_differences, hash_of_answers, in_words, read_card
from vislang.evaluate.few_shot import selection
from vislang.evaluate.results import PREDICTIONS
from vislang.evaluate.shots import Setting, Trial
from vislang.evaluate.verdict import paired
from vislang.metrics.figure import SCHEMA, Figure, metric, plain, show, show_difference
from vislang.metrics.paired import McNemar, bootstrap_difference, mcnemar
from vislang.notebook import block, note, table
from vislang.tasks.files import each, read_lines

OTHERWISE = ("decoding", "support", "shots", "prompts", "model", "environment")
"""Entries in which cards may differ; the comparison names them."""


@dataclass(frozen=True)
class Side:
    """The predictions of an evaluation.

    Attributes:
        folder: its folder.
        card: its score card.
        rows: for each setting and trial, the predictions by id. Without shots there is one setting, None.
    """

    folder: Path
    card: dict[str, Any]
    rows: dict[Setting | None, dict[Trial, dict[str, Mapping[str, Any]]]]


@dataclass(frozen=True)
class Comparison:
    """The second evaluation minus the first one, in one setting.

    Attributes:
        setting: the setting; None without shots.
        metric: the metric of single predictions.
        clusters: number of images.
        means: the mean scores of both sides.
        difference: the mean difference, positive if the second side is better; with its 95 % interval.
        interval: what the interval is over.
        test: McNemar's test, for single trials whose answers are right or wrong.
    """

    setting: Setting | None
    metric: str
    clusters: int
    means: tuple[float, float]
    difference: Figure
    interval: str
    test: McNemar | None

    def as_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            **vars(self),
            "setting": None if self.setting is None else asdict(self.setting),
            "means": list(self.means),
            "difference": self.difference.as_json(),
            "test": None if self.test is None else asdict(self.test),
        }

    @property
    def in_words(self) -> str:
        """The result in a sentence."""
        low, high = self.difference.low, self.difference.high
        found = "no difference was found"
        if low is None or high is None:
            found = "all questions are about one image, so there is no interval"
        elif low > 0:
            found = "B is better than A"
        elif high < 0:
            found = "A is better than B"
        return f"{metric(self.metric).title}: {found} ({show_difference(self.metric, self.difference)})"


@dataclass(frozen=True)
class ComparedEvaluations:
    """Two evaluations of the same questions. A notebook shows their differences as a table.

    Attributes:
        first, second: their folders, called A and B.
        comparisons: one for each setting that both have.
        differences: the entries in which their cards differ, with the values of A and B.
    """

    HEADINGS = ("setting", "metric", "A", "B", "B - A (95 % interval)", "only A, only B right", "McNemar's p")

    first: Path
    second: Path
    comparisons: list[Comparison]
    differences: list[tuple[str, list[str]]]

    @property
    def title(self) -> str:
        """What A and B are."""
        return f"A: {self.first}   B: {self.second}"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The paired differences as text, under :attr:`HEADINGS`."""
        for own in self.comparisons:
            test = own.test
            yield (
                "" if own.setting is None else f"{own.setting.shots} shots, {selection(own.setting)}",
                metric(own.metric).title,
                *(show(own.metric, plain(mean, own.difference.n)) for mean in own.means),
                show_difference(own.metric, own.difference),
                "" if test is None else f"{test.only_first}, {test.only_second}",
                "" if test is None else f"{test.p:.3g}{'' if test.exact else ' (chi-square)'}",
            )

    def sentences(self) -> Iterator[str]:
        """The results of the evaluations themselves, without those of controls."""
        for own in self.comparisons:
            if own.setting is None or own.setting.variant == "plain":
                yield own.in_words

    def as_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "schema": SCHEMA,
            "a": str(self.first),
            "b": str(self.second),
            "comparisons": [comparison.as_json() for comparison in self.comparisons],
            "differences": dict(self.differences),
        }

    def _repr_html_(self) -> str:
        """The differences in a notebook."""
        shown = [block(sentence) for sentence in self.sentences()]
        if self.differences:
            shown += [note("They also differ in (A, B):"), *(block(note(in_words([own]))) for own in self.differences)]
        return block(table(self.title, self.HEADINGS, self.rows()), *shown)


def compare(first: Path, second: Path) -> ComparedEvaluations:
    """Compare two evaluations of the same questions.

    Args:
        first, second: their folders.

    Raises:
        UserError: the data or the scorer differ, a file was changed after its card was written, or there is nothing to
            compare.
    """
    one, other = read_side(first), read_side(second)
    if found := card_differences(one.card, other.card, MATTERS):
        remedy = (
            f"Score both again without the models: vislang eval {first / PREDICTIONS} --out NEW."
            if all(name.startswith("scorer") for name, _ in found)
            else "Evaluate both on the same examples."
        )
        raise UserError(f"{first} and {second} cannot be compared: {in_words(found)}. {remedy}")
    settings = [setting for setting in one.rows if setting in other.rows]
    if not settings:
        raise UserError(f"{first} and {second}: have no number and selection of shots in common.")
    comparisons = [_compared(one, other, setting) for setting in settings]
    return ComparedEvaluations(first, second, comparisons, card_differences(one.card, other.card, OTHERWISE))


def read_side(folder: Path) -> Side:
    """Read the card and the predictions of an evaluation.

    Raises:
        UserError: a file is missing or was changed, or the predictions were not scored.
    """
    folder = folder.parent if folder.is_file() else folder
    card, path = read_card(folder), folder / PREDICTIONS
    records: list[Mapping[str, Any]] = each(path, read_lines(path), dict)
    if hash_of_answers(records) != card.get("answers", {}).get("sha256"):
        raise UserError(
            f"{path}: is not the file that {folder / CARD} describes; it was changed. Score it again: vislang eval "
            f"{path} --out NEW."
        )
    if not all("score" in record for record in records):
        raise UserError(f"{path}: its predictions have no scores, because the examples have no targets.")
    rows: dict[Setting | None, dict[Trial, dict[str, Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        setting = Setting(*(record[n] for n in Setting.__dataclass_fields__)) if "shots" in record else None
        trial = Trial(*(record[n] for n in Trial._fields)) if setting else Trial(0, 0)
        rows[setting][trial][record["id"]] = record
    return Side(folder, card, {setting: dict(trials) for setting, trials in rows.items()})


def _compared(one: Side, other: Side, setting: Setting | None) -> Comparison:
    trials = one.rows[setting], other.rows[setting]
    ids = list(next(iter(trials[0].values())))
    for side, own in zip((one, other), trials, strict=True):
        if any(set(rows) != set(ids) for rows in own.values()):
            raise UserError(f"{side.folder / PREDICTIONS}: does not have the same ids in every trial as {one.folder}.")
    clusters = [next(iter(trials[0].values()))[name]["cluster"] for name in ids]
    scores = tuple(_scores(own, ids) for own in trials)
    name = one.card["metric"]
    means = (float(scores[0].mean()), float(scores[1].mean()))
    if all(len(own) == 1 for own in trials):
        sign = 1 if metric(name).higher_is_better else -1
        figure = bootstrap_difference(sign * (scores[1] - scores[0])[0, 0], clusters)
        return Comparison(
            setting,
            name,
            len(set(clusters)),
            means,
            figure,
            "paired bootstrap over images",
            _test(trials, ids, clusters),
        )
    figure = paired(name, scores[1], scores[0], clusters)
    return Comparison(setting, name, len(set(clusters)), means, figure, "draws of shots and images", None)


def _scores(trials: Mapping[Trial, Mapping[str, Mapping[str, Any]]], ids: list[str]) -> np.ndarray:
    """The scores (draws, orders, predictions)."""
    draws, orders = (sorted({trial[side] for trial in trials}) for side in (0, 1))
    return np.array(
        [[[trials[Trial(draw, order)][name]["score"] for name in ids] for order in orders] for draw in draws]
    )


def _test(
    trials: tuple[Mapping[Trial, Mapping[str, Mapping[str, Any]]], ...], ids: list[str], clusters: list[str]
) -> McNemar | None:
    sides = [next(iter(own.values())) for own in trials]
    if not all("right" in rows[name] for rows in sides for name in ids):
        return None
    first, second = (np.array([rows[name]["right"] for name in ids]) for rows in sides)
    return mcnemar(first, second, clusters)
