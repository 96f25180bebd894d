"""A task of vislang as a local task of lmms-eval, which needs no network: its images, questions and answers as Parquet,
and the examples of each prompt as turns with their images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.document import Image
from vislang.errors import UserError, needs
from vislang.evaluate.generate import MAX_NEW_TOKENS
from vislang.example import Example, reference_text
from vislang.files import write_text
from vislang.prompt import as_generation, question_of

YAML = """task: {name}
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: generate_until
doc_to_messages: !function {name}_messages.doc_to_messages
doc_to_text: question
doc_to_target: answer
generation_kwargs:
  max_new_tokens: {length}
  do_sample: false
  until: []
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: true
"""

PYTHON = '''"""The messages of {name}: its examples, then the question."""

import io
import json
from pathlib import Path

from PIL import Image

SHOTS = json.loads(Path(__file__).with_name("{name}_shots.json").read_text())


def doc_to_messages(doc):
    turns = []
    for shot in SHOTS:
        images = [Image.open(Path(__file__).with_name(name)) for name in shot["images"]]
        turns += [turn("user", images, shot["question"]), turn("assistant", [], shot["answer"])]
    images = [Image.open(io.BytesIO(image)) for image in doc["images"]]
    return [*turns, turn("user", images, doc["question"])]


def turn(role, images, text):
    content = [dict(type="image", url=image) for image in images]
    return dict(role=role, content=[*content, dict(type="text", text=text)] if text else content)
'''


def write_task(folder: Path, name: str, queries: Sequence[Example], shots: Sequence[Example] = ()) -> None:
    """Write the task; ``lmms_eval --include_path FOLDER --tasks NAME`` runs it.

    Args:
        folder: it is made if missing.
        name: name of the task: letters, digits and underscores.
        queries: examples about images, whose answers are texts.
        shots: the examples of every prompt, in order.

    Raises:
        UserError: an example has a medium that is not an image, or no answer in words; or the name is not valid.
    """
    needs("pyarrow", "eval", "a task for lmms-eval")
    import pyarrow
    import pyarrow.parquet

    if not name.isidentifier():
        raise UserError(f"{name}: as the name of a task for lmms-eval, use letters, digits and underscores.")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(query) for query in queries]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")
    records = []
    for number, row in enumerate(map(_row, shots)):
        names = [f"{name}_shot_{number}_{index}" for index in range(len(row["images"]))]
        for own, image in zip(names, row["images"], strict=True):
            (folder / own).write_bytes(image)
        records.append({"images": names, "question": row["question"], "answer": row["answer"]})
    write_text(folder / f"{name}_shots.json", json.dumps(records, indent=1))
    write_text(folder / f"{name}_messages.py", PYTHON.format(name=name))
    yaml = YAML.format(name=name, file=json.dumps(str(folder / f"{name}.parquet")), length=MAX_NEW_TOKENS)
    write_text(folder / f"{name}.yaml", yaml)


def _row(example: Example) -> dict[str, Any]:
    answer = reference_text(example)
    media = as_generation(example).prompt.media
    if answer is None:
        raise UserError(f"{example.name}: has no answer in words, so lmms-eval cannot score it.")
    if other := [medium.name for medium in media if not isinstance(medium, Image)]:
        raise UserError(f"{example.name}: {other[0]} is no image; write_task takes questions about images.")
    images = [medium.read() for medium in media]
    return {"id": example.id, "images": images, "question": question_of(example), "answer": answer.strip()}
