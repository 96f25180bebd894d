"""What the tests of every benchmark need of each."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tasks import families
from vislang.example import Prediction
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.benchmarks import BENCHMARKS


@dataclass(frozen=True)
class Bad:
    """A fault of an official file.

    Attributes:
        file: path of the file in the folder.
        old, new: text of the file, and what replaces it at its first occurrence.
        message: regular expression for the error, which also names the file.
    """

    file: str
    old: str
    new: str
    message: str


@dataclass(frozen=True)
class Family:
    """A benchmark and a small folder of it.

    Attributes:
        name: name of the task.
        write: writes a folder in the official format, with media: a split to learn from, if the benchmark has one, and
            the split that is evaluated by default.
        sent: name and content of a good file of predictions in the official format; None if there is no such format.
        submission: name of the submission file that an evaluation writes; None for none.
        cells: how each model of ``models.py`` answers the task; the others cannot.
        repeated: an official file, and the function that repeats a record in its content; the error names the file.
        bad: faults, each of which is an error that names its file.
        whole: official files that can be cut off anywhere without becoming invalid, such as lines of text.
    """

    name: str
    write: Callable[[Path], None]
    sent: tuple[str, str] | None
    submission: str | None
    cells: Mapping[str, str]
    repeated: tuple[str, Callable[[str], str]] | None
    bad: Sequence[Bad] = ()
    whole: Sequence[str] = field(default=())

    def opened(self, folder: Path) -> Benchmark:
        """The benchmark on a new folder."""
        self.write(folder)
        return BENCHMARKS[self.name](folder)


def families_by_name() -> dict[str, Family]:
    """The families of the test files in this folder."""
    found = {}
    for module in pkgutil.iter_modules(families.__path__):
        if module.name.startswith("test_") and module.name != "test_every_family":
            imported = importlib.import_module(f"{families.__name__}.{module.name}")
            for own in vars(imported).values():
                if isinstance(own, Family):
                    found[own.name] = own
    return found


def values(figures) -> dict[str, float]:
    """The values of figures by name."""
    return {name: figure.value for name, figure in figures.items()}


def scored(task: Benchmark, answers: Mapping[str, Any], split: str | None = None) -> dict[str, float]:
    """The values of predictions by id, of the default split."""
    examples = task.examples(split or task.default_split)
    return values(task.score(examples, [Prediction(example.id, answers[example.id]) for example in examples]))


def doubled(*keys: str) -> Callable[[str], str]:
    """Repeats the first record of a JSON list below some keys."""

    def repeat(text: str) -> str:
        content = json.loads(text)
        records = content
        for key in keys:
            records = records[key]
        records.append(records[0])
        return json.dumps(content)

    return repeat


def last_line_twice(text: str) -> str:
    """Repeats the last line of a file of lines."""
    return text.rstrip("\n") + "\n" + text.rstrip("\n").rpartition("\n")[2] + "\n"
