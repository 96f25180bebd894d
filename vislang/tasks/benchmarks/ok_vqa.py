"""OK-VQA (Marino et al. 2019): questions about images that need knowledge from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vislang.data.fields import field, one_of, text_field
from vislang.tasks.benchmarks.vqa import VQA


class OKVQA(VQA):
    """The files of OK-VQA 1.0 or 1.1, in the format of VQA. Each of five people's answers is in a file twice.

    The score is that of VQA, as in the authors' program; it is also given for each category of knowledge, by the names
    that the file of annotations has in ``question_types``.
    """

    name = "ok-vqa"
    about = "questions about photographs that need outside knowledge"
    metrics = ("accuracy",)
    splits = ("train2014", "val2014")
    files = "OpenEnded_mscoco_SPLIT_questions.json, mscoco_SPLIT_annotations.json, images as COCO_SPLIT_<12 digits>.jpg"

    def kind_of(self, record: Mapping[str, Any], content: Mapping[str, Any]) -> str:
        """The category of knowledge; see :meth:`~vislang.tasks.benchmarks.vqa.VQA.kind_of`."""
        names = field(content, "question_types")
        return text_field(names, one_of(field(record, "question_type"), tuple(names)))
