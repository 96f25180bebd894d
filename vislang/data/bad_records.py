"""The bad records of a run: counted by kind, listed in a file. Too many of them stop it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

from vislang.data.problems import DataError, Problem, must_be_good

FILE = "bad_records.jsonl"
"""The list, in the folder of a run."""

ALWAYS_ALLOWED = 10
"""So many bad records never stop a run that may skip some."""


class BadRecords:
    """Collects the bad records that are left out while data are read, and those that are replaced while training.

    Args:
        skip: whether bad records may be left out at all.
        max_share: of the records that were read, or drawn, at most so many may be bad.

    Attributes:
        kinds: how many there are, by kind.
    """

    def __init__(self, skip: bool = False, max_share: float = 0.01):
        self.skip, self.max_share = skip, max_share
        self.kinds: Counter[str] = Counter()
        self._read: list[Iterable[Problem]] = []
        self._records = 0
        self._replaced: dict[tuple[str, int], dict[str, Any]] = {}
        self._path: Path | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return self.kinds.total()

    def found(self, problems: Iterable[Problem], kinds: Counter[str], records: int) -> None:
        """Add those of a source.

        Args:
            problems: they are iterated over whenever they are listed.
            kinds: how many there are, by kind.
            records: how many records of the source are good.
        """
        self._read.append(problems)
        self._records += records + kinds.total()
        self.kinds += kinds

    def check(self, name: str = "") -> None:
        """See that the data may be trained on.

        Args:
            name: of the data, for the message.

        Raises:
            DataError: there are bad records and none may be left out, or too many.
        """
        if self.count:
            must_be_good(list(islice(chain(*self._read), 10)), self.skip, name, self.count)
            self._check_share(self.count, self._records, "read")

    def start(self, folder: Path, done: int = 0) -> None:
        """Write the list into the folder of a run, and keep it up to date from here on.

        Args:
            folder: of the run.
            done: steps that a resumed run has behind it; what was replaced later is going to be replaced again.
        """
        self._path = folder / FILE
        before = self._path.read_text(encoding="utf-8").splitlines() if self._path.is_file() else []
        rows = [json.loads(line) for line in before if line.endswith("}")]
        self._replaced = {(row["file"], row["line"]): row for row in rows if 0 < row.get("step", 0) <= done}
        self.kinds += Counter(row["kind"] for row in self._replaced.values())
        unfinished = self._path.with_suffix(".unfinished")
        with unfinished.open("w", encoding="utf-8") as file:
            for row in chain((vars(problem) for problem in chain(*self._read)), self._replaced.values()):
                file.write(json.dumps(row) + "\n")
        if self.count:
            os.replace(unfinished, self._path)
        else:
            unfinished.unlink()
            self._path.unlink(missing_ok=True)

    def replaced(self, problems: Iterable[Problem], step: int, drawn: int) -> None:
        """Add records that were replaced by others; one that was replaced before counts once.

        Args:
            problems: what is wrong with them.
            step: of the training in which they were.
            drawn: how many records were drawn up to this step.

        Raises:
            DataError: too many of them are bad.
        """
        for problem in problems:
            if (problem.file, problem.line) not in self._replaced:
                row = {**vars(problem), "step": step}
                self._replaced[(problem.file, problem.line)] = row
                self.kinds[problem.kind] += 1
                if self._path is not None:
                    # One write a line, so that several processes can share the file.
                    with self._path.open("ab") as file:
                        file.write((json.dumps(row) + "\n").encode())
        self._check_share(len(self._replaced), drawn, "drawn while training")

    def summary(self) -> str:
        """How many there are of each kind, such as ``3 bad records (2 missing media, 1 format)``."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
        return f"{self.count:,} bad record{'s' if self.count > 1 else ''} ({kinds})"

    def _check_share(self, bad: int, records: int, how: str) -> None:
        if bad > max(ALWAYS_ALLOWED, self.max_share * records):
            where = f" They are listed in {self._path}." if self._path is not None else ""
            raise DataError(
                f"{bad:,} of {records:,} records {how} are bad ({100 * bad / max(1, records):.1f} %), more than "
                f"max_bad_share allows ({100 * self.max_share:g} %): {self.summary()}.{where} Fix the data, or raise "
                "max_bad_share."
            )
