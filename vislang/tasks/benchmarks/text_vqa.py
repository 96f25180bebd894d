"""TextVQA (Singh et al. 2019): questions about text in images, each answered by ten people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vislang.data.fields import as_text, id_field, list_field, text_field, whole_field
from vislang.data.problems import RecordError
from vislang.document import Document
from vislang.example import Answers, Example
from vislang.metrics.vqa import text_vqa_accuracy, text_vqa_scores
from vislang.tasks.benchmarks.vqa import AnnotatedQuestions, Annotation
from vislang.tasks.files import each, image_in, listed, read_json


class TextVQA(AnnotatedQuestions):
    """``TextVQA_0.5.1_SPLIT.json``; the questions of the test split have no answers.

    The score is that of the challenge's server, which cleans up answers a little differently than VQA's.
    """

    name = "text-vqa"
    about = "questions about text in photographs, answered by ten people each"
    splits = ("train", "val", "test")
    patterns = (r"TextVQA_.*_(train|val|test)\.json",)
    files = "TextVQA_0.5.1_SPLIT.json, images as train_images/<image_id>.jpg and test_images/<image_id>.jpg"

    def read(self, split: str) -> list[Example]:
        """The questions of a split, in the official order."""
        path = self.split_files[split]
        # The images of the validation split are among those of the training split.
        images = "test_images" if split == "test" else "train_images"

        def example(record: Mapping[str, Any]) -> Example:
            number, picture = str(whole_field(record, "question_id")), id_field(record, "image_id")
            source = f"{path.name}, {number}"
            image = image_in(self.folder, f"{images}/{picture}.jpg", f"{picture}.jpg")
            prompt = Document([image, text_field(record, "question")], name=source)
            target = None
            if "answers" in record:
                answers = [as_text(answer, "answers") for answer in list_field(record, "answers")]
                self.annotations[number] = Annotation(answers, "")
                target = Answers(text_vqa_scores(answers))
            elif split != "test":
                raise RecordError('has no "answers".')
            return Example(number, prompt, target, (), picture, source, self.name)

        return each(path, listed(path, read_json(path), "data"), example)

    def accuracy(self, answer: str, answers: Sequence[str]) -> float:
        """See :func:`vislang.metrics.vqa.text_vqa_accuracy`."""
        return text_vqa_accuracy(answer, answers)
