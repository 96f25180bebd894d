"""The bad records of a run: counted by kind and listed in a file. Too many of them stop the run."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from vislang.data.index import IndexedFile
from vislang.data.problems import DataError, Problem, must_be_good

FILE = "bad_records.jsonl"
"""The name of the list in the folder of a run."""

ALWAYS_ALLOWED = 10
"""This many bad records never stop a run that skips bad records."""


class BadRecords:
    """The records that are skipped when the data are read, and those that are replaced during training.

    Args:
        skip: whether bad records may be skipped; otherwise they are an error.
        max_share: the largest share of bad records among those that were read, checked or drawn.

    Attributes:
        kinds: the number of bad records of each kind.
    """

    def __init__(self, skip: bool = False, max_share: float = 0.01):
        self.skip, self.max_share = skip, max_share
        self.kinds: Counter[str] = Counter()
        self._files: list[IndexedFile] = []
        self._found: dict[tuple[str, int | str], Problem] = {}
        self._replaced: dict[tuple[str, int | str], dict[str, Any]] = {}
        self._shares: dict[str, tuple[int, int]] = {}
        self._path: Path | None = None

    @property
    def count(self) -> int:
        """The number of bad records."""
        return self.kinds.total()

    def add_file(self, file: IndexedFile) -> None:
        """Add the bad records that were found when a file was indexed."""
        self._files.append(file)
        self.kinds += file.faults
        self._see("read", file.faults.total(), file.faults.total() + len(file))

    def add(self, problems: Iterable[Problem], records: int, how: str = "read") -> None:
        """Add problems that were found among ``records`` records; ``how`` is ``read`` or ``checked``."""
        new = {_key(vars(problem)): problem for problem in problems}
        self.kinds += Counter(problem.kind for key, problem in new.items() if key not in self._found)
        self._found |= new
        self._see(how, len(new), records)

    def check(self) -> None:
        """Raise an error if the data cannot be trained on.

        Raises:
            DataError: there are bad records and ``skip`` is off, or there are too many.
        """
        must_be_good(list(islice(self._listed(), 10)), self.skip, count=self.count)
        for how, (bad, records) in self._shares.items():
            self._check_share(bad, records, how)

    def start(self, folder: Path, done: int = 0, append_only: bool = False) -> None:
        """Write the list into the folder of a run; later additions are appended to it.

        Args:
            folder: the folder of the run.
            done: the number of steps done before a resume. Records that were replaced after that step are dropped from
                the list, because the resumed run replaces them again.
            append_only: another process of the run has written the list.
        """
        self._path = folder / FILE
        before = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        for row in (json.loads(line) for line in before if line.endswith("}")):
            key = _key(row)
            if 0 < row.get("step", 0) <= done and key not in self._found:
                self._replaced[key] = row
                self.kinds[row["kind"]] += 1
        if append_only:
            return
        if not self.count:
            self._path.unlink(missing_ok=True)
            return
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".unfinished")
        with unfinished.open("w", encoding="utf-8") as file:
            for row in chain(map(vars, self._listed()), self._replaced.values()):
                file.write(json.dumps(row) + "\n")
        os.replace(unfinished, self._path)

    def replaced(self, problems: Iterable[Problem], step: int, drawn: int) -> None:
        """Add records that were replaced during training. A record that was replaced before is counted once.

        Args:
            problems: the problems of these records.
            step: the training step.
            drawn: the number of records drawn up to this step.

        Raises:
            DataError: too many of the drawn records are bad.
        """
        for problem in problems:
            key = _key(vars(problem))
            if key in self._replaced:
                continue
            row = self._replaced[key] = {**vars(problem), "step": step}
            if key in self._found:
                continue
            self.kinds[problem.kind] += 1
            if self._path is not None:
                _list_once(self._path, row)
        self._check_share(len(self._replaced), drawn, "drawn")

    def _listed(self) -> Iterator[Problem]:
        return chain(self._found.values(), chain.from_iterable(file.problems() for file in self._files))

    def _see(self, how: str, bad: int, records: int) -> None:
        before = self._shares.get(how, (0, 0))
        self._shares[how] = (before[0] + bad, before[1] + records)

    def _check_share(self, bad: int, records: int, how: str) -> None:
        if bad > max(ALWAYS_ALLOWED, self.max_share * records):
            where = f" They are listed in {self._path}." if self._path is not None else ""
            raise DataError(
                f"{bad:,} of {records:,} records {how} are bad ({100 * bad / max(1, records):.1f} %), more than "
                f"max_bad_share allows ({100 * self.max_share:g} %): {in_words(self.kinds)}.{where} Fix the data, or "
                "raise max_bad_share."
            )


def _list_once(path: Path, row: Mapping[str, Any]) -> None:
    """Append a bad record to the list of a run, unless another process of the run has met it before."""
    with FileLock(path.with_name(f".{path.name}.lock")):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        if _key(row) in map(_key, map(json.loads, lines)):
            return
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_kinds(folder: Path) -> dict[str, int]:
    """The number of bad records of each kind in the list of a run, to which all of its processes have added."""
    if not (folder / FILE).is_file():
        return {}
    with (folder / FILE).open(encoding="utf-8") as lines:
        kinds = {_key(row): row["kind"] for row in map(json.loads, lines)}
    return dict(Counter(kinds.values()))


def in_words(kinds: Mapping[str, int]) -> str:
    """Numbers of bad records as text.

    >>> in_words({"missing media": 2, "format": 1})
    '3 bad records (2 missing media, 1 format)'
    """
    count = sum(kinds.values())
    listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items())
    return f"{count:,} bad record{'s' if count > 1 else ''} ({listed})"


def _key(problem: Mapping[str, Any]) -> tuple[str, int | str]:
    """What identifies a bad record: its file and line, or, in a file without lines, the message."""
    return problem["file"], problem["line"] or problem["message"]
