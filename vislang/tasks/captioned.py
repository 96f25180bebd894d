"""Benchmarks of captions, scored as for MS COCO."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vislang.data.fields import id_field, text_field
from vislang.example import Example, Prediction, Text
from vislang.metrics.captions import COCO_METRICS, coco_scores
from vislang.metrics.figure import Figures
from vislang.tasks.benchmark import Benchmark, must_have_target
from vislang.tasks.files import each, read_json


class Captioned(Benchmark):
    """Images or videos with several reference captions each.

    METEOR, ROUGE-L and SPICE of the COCO caption evaluation are left out: no maintained package computes them as it
    does, and its own programs for METEOR and SPICE need Java and downloads.
    """

    kind = "text"
    media = frozenset({"image"})
    metrics: tuple[str, ...] = COCO_METRICS

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """See :func:`vislang.metrics.captions.coco_scores`; a missing caption is an empty one."""
        references = []
        for example in examples:
            must_have_target(example)
            assert isinstance(example.target, Text)
            references.append(example.target.references)
        return coco_scores(["" if p.answer is None else str(p.answer) for p in predictions], references)

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``[{"image_id": ..., "caption": ...}, ...]``, the format of the COCO caption evaluation."""
        return each(path, read_json(path), lambda r: Prediction(id_field(r, "image_id"), text_field(r, "caption")))

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`."""
        records = [{"image_id": int(p.id), "caption": "" if p.answer is None else str(p.answer)} for p in predictions]
        return f"{self.name.replace('-', '_')}_results.json", json.dumps(records)
