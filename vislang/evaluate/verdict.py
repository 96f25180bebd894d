"""What the shots of a prompt are worth, in words. Every sentence follows from the interval of a paired difference: both
sides answer the same questions, after the same draws of shots where both have shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vislang.evaluate.shots import Setting, Variant
from vislang.metrics.figure import Figure, metric, show_difference, title_of
from vislang.metrics.variance import spread

SHUFFLED: dict[Variant, str] = {"images_shuffled": "images", "labels_shuffled": "answers"}
"""What is shuffled among the shots."""

CONTROLS: tuple[Variant, ...] = ("linear_probe", "most_similar_shot")
"""Guesses from the same shots."""


@dataclass(frozen=True)
class Finding:
    """A sentence of the verdict.

    Attributes:
        about: what is compared: ``shots``, ``images_shuffled``, ``labels_shuffled``, ``blind`` or ``control``.
        text: the sentence.
        metric: the metric of the difference.
        difference: the paired difference with its 95 % interval; higher is better, whatever the metric.
    """

    about: str
    text: str
    metric: str
    difference: Figure

    def as_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {**vars(self), "difference": self.difference.as_json()}


Scored = tuple[Setting, str, np.ndarray]
"""A setting, the metric of single predictions, and their scores (draws, orders, predictions)."""


def verdict(points: Sequence[Scored], baselines: Mapping[str, np.ndarray], clusters: Sequence[str]) -> list[Finding]:
    """The findings about the largest number of shots.

    Args:
        points: all settings.
        baselines: the scores of guesses from the whole support, (1, 1, predictions), by name.
        clusters: a key for each prediction; those with the same key share an image.
    """
    plain = [(setting, scores) for setting, _, scores in points if setting.variant == "plain"]
    if not plain:
        return []
    name = points[0][1]
    sign = 1 if metric(name).higher_is_better else -1
    found = {setting: scores for setting, _, scores in points}
    # With two selections, the verdict is about the first one.
    most, scores = max(plain, key=lambda own: own[0].shots)
    fewest, fewer = min(plain, key=lambda own: own[0].shots)
    findings: list[Finding] = []

    def compare(about: str, other: np.ndarray, better: str, same: str, worse: str) -> None:
        figure = paired(name, scores, other, clusters)
        assert figure.low is not None
        assert figure.high is not None
        text = better if figure.low > 0 else worse if figure.high < 0 else same
        findings.append(Finding(about, f"{text} ({show_difference(name, figure)}).", name, figure))

    if len(set(clusters)) < 2:
        return []
    title, shots = metric(name).title, _shots(most)
    if fewest.shots < most.shots:
        compare(
            "shots",
            fewer,
            f"{shots} are better than {_shots(fewest)} in {title}",
            f"No effect of {shots} over {_shots(fewest)} on {title} was found",
            f"{shots} are worse than {_shots(fewest)} in {title}",
        )
    both = _one_control(found, most)
    for variant, whose in SHUFFLED.items():
        other = found.get(_variant(most, variant))
        if other is None or (both and variant == "labels_shuffled"):
            continue
        what = " and ".join(SHUFFLED.values()) if both else whose
        compare(
            variant,
            other,
            f"The {what} of the shots matter: own ones are better than shuffled ones",
            f"No effect of the {what} of the shots was found: own ones are like shuffled ones",
            f"Shuffled {what} of the shots are better than own ones",
        )
    if (other := found.get(_variant(most, "blind"))) is not None:
        compare(
            "blind",
            other,
            "Prompts with images are better than prompts without any",
            "No difference between prompts with images and prompts without any was found",
            "Prompts with images are worse than prompts without any",
        )
    controls = {title_of(variant): found[own] for variant in CONTROLS if (own := _variant(most, variant)) in found}
    controls |= {title_of(name): own for name, own in baselines.items()}
    if controls:
        best = max(controls, key=lambda control: sign * controls[control].mean())
        compare(
            "control",
            controls[best],
            f"The model is better than the best guess without it, the {best}",
            f"No difference between the model and the best guess without it, the {best}, was found",
            f"The model is worse than the {best}",
        )
    return findings


def paired(name: str, one: np.ndarray, other: np.ndarray, clusters: Sequence[str]) -> Figure:
    """By how much one side is better than the other, with its interval over draws and questions.

    Args:
        name: the metric.
        one, other: scores (draws, orders, predictions). The orders that both have are averaged. Equal numbers of draws
            are paired, because they are the same draws or independent ones; otherwise the side with more draws is
            compared with the mean of the other one.
        clusters: a key for each prediction.
    """
    orders = min(one.shape[1], other.shape[1])
    sides = [scores[:, :orders].mean(axis=1, keepdims=True) for scores in (one, other)]
    if len(sides[0]) != len(sides[1]):
        sides = [side if len(side) == max(map(len, sides)) else side.mean(axis=0, keepdims=True) for side in sides]
    kind = metric(name)
    figure = spread((sides[0] - sides[1]) * (1 if kind.higher_is_better else -1), clusters).mean
    if not kind.percent or figure.low is None or figure.high is None:
        return figure
    return Figure(figure.value, max(figure.low, -1.0), min(figure.high, 1.0), figure.n)


def _one_control(found: Mapping[Setting, np.ndarray], setting: Setting) -> bool:
    """Whether shuffling images and answers was one control: where shots are only an image and its answer."""
    sides = [found.get(_variant(setting, variant)) for variant in SHUFFLED]
    return sides[0] is not None and sides[0] is sides[1]


def _variant(setting: Setting, variant: Variant) -> Setting:
    return Setting(setting.shots, setting.select, variant)


def _shots(setting: Setting) -> str:
    return "zero shots" if not setting.shots else f"{setting.shots} shot{'s' if setting.shots > 1 else ''}"
