"""The sections that the pages of all evaluations share: scores by kind of question, calibration, answers, card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vislang.evaluate.abstain import probability_of
from vislang.evaluate.breakdown import breakdowns
from vislang.evaluate.browse import browser_of
from vislang.evaluate.differences import flat
from vislang.evaluate.intervals import drawn
from vislang.evaluate.plots import reliability_plot
from vislang.example import Example, Prediction
from vislang.metrics.calibration import expected_calibration_error, reliability
from vislang.metrics.figure import metric, show
from vislang.metrics.items import Items
from vislang.tasks.task import Task

LONG = ("shots",)
"""Entries of a card that are listed in full only in its JSON."""


def answer_sections(task: Task, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The values of the macros in ``answers.html.jinja``: ``breakdowns``, ``calibration`` and ``browser``, each None
    where it does not apply. Retrieval has none of them: its predictions are rankings.

    Args:
        task: scores the predictions.
        examples: the examples.
        predictions: one for each of ``task.ids(examples)``.
    """
    if task.kind == "pairs" or not task.can_score(examples):
        return {"breakdowns": None, "calibration": None, "browser": None}
    items = task.score_each(examples, predictions)
    found = breakdowns(examples, items, task.clusters(examples))
    title = metric(items.metric).title
    return {
        "breakdowns": [(f"{title} by {own.by}", drawn(items.metric, own.figures)) for own in found] or None,
        "calibration": calibration(predictions, items),
        "browser": browser_of(examples, predictions, items, found[0] if found else None),
    }


def calibration(predictions: Sequence[Prediction], items: Items) -> dict[str, Any] | None:
    """The reliability diagram with its bins, for answers that have probabilities and are right or wrong.

    Captions have none: a caption is as good as its score, and hardly ever equals a reference.
    """
    if items.right is None or items.metric == "cider_d":
        return None
    if not all(p.answer is None or p.log_likelihood is not None or p.answer in p.candidates for p in predictions):
        return None
    pairs = [(probability_of(p), right) for p, right in zip(predictions, items.right.tolist(), strict=True)]
    given = [(probability, right) for probability, right in pairs if probability is not None]
    if not given:
        return None
    bins = reliability(np.array([probability for probability, _ in given]), np.array([right for _, right in given]))
    return {
        "plot": reliability_plot("Share of right answers by their probability", bins),
        "error": f"{100 * expected_calibration_error(bins):.1f}",
        "generated": any(prediction.log_likelihood is not None for prediction in predictions),
        "rows": [
            (
                f"{100 * own.low:.0f} to {100 * own.high:.0f} %",
                f"{own.right.n:,}",
                f"{100 * own.probability:.1f} %",
                show("accuracy", own.right),
            )
            for own in bins
        ],
    }


def card_sections(card: Mapping[str, Any]) -> dict[str, Any]:
    """A score card for the page: its entries by dotted name, hashes by their first digits, and the whole as JSON."""
    entries = flat({name: value for name, value in card.items() if name not in LONG})

    def short(value: str) -> str:
        return f"{value[:12]}…" if re.fullmatch(r"[0-9a-f]{40,}", value) else value

    rows = [(name, short(value)) for name, value in entries.items() if value not in ("", "null", "None", "{}", "[]")]
    return {"rows": rows, "json": json.dumps(card, indent=1, default=str)}
