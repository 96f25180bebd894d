"""Translation tasks, scored by sacreBLEU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vislang.example import Example, Prediction, Text
from vislang.metrics.figure import Figures
from vislang.metrics.items import Items
from vislang.metrics.translation import METRICS, sentence_chrf, translation
from vislang.tasks.benchmark import must_have_target
from vislang.tasks.task import ReadTask, Task


class Translation(Task):
    """A task whose targets are one reference translation each."""

    kind = "text"
    metrics = METRICS

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """See :func:`vislang.metrics.translation.translation`."""
        return translation(*_both(examples, predictions))

    def score_each(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Items:
        """chrF of each sentence; none is right or wrong."""
        return Items("chrf", sentence_chrf(*_both(examples, predictions)), None)


SET_METRICS = ("chrf", "bleu")
"""Metrics of sets of several languages. The main one is chrF: BLEU needs spaces between words."""


class TranslationSet(Translation, ReadTask):
    """A packaged set of translations into several languages; see :class:`~vislang.tasks.task.ReadTask`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.metrics = SET_METRICS


def _both(examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """The predicted translations and the references."""
    references = []
    for example in examples:
        must_have_target(example)
        assert isinstance(example.target, Text)
        references.append(example.target.references[0])
    return ["" if p.answer is None else str(p.answer) for p in predictions], references
