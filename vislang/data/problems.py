"""What can be wrong with data, and how it is reported: bad records by line, files that cannot be used at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vislang.errors import UserError


class DataError(UserError):
    """Data that cannot be used; the message names the file or the set, and the remedy."""


class RecordError(ValueError):
    """A bad record: what is wrong with it and what to do."""


@dataclass(frozen=True)
class Problem:
    """A bad record: its file, its line (0 in what has no lines), and what is wrong."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        if self.line:
            return f"{self.file}:{self.line}: {self.message}"
        # A message about a medium begins with its file already.
        return self.message if self.message.startswith(self.file) else f"{self.file}: {self.message}"


def must_be_good(problems: Sequence[Problem], skip: bool, name: str = "") -> None:
    """Raise an error that lists the first bad records, unless they may be skipped.

    Raises:
        DataError: there are some.
    """
    if problems and not skip:
        shown = "\n".join(f"  {problem}" for problem in problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        count = "1 bad record" if len(problems) == 1 else f"{len(problems)} bad records"
        raise DataError(
            f"{f'{name}: ' if name else ''}{count}:\n{shown}{more}\n"
            "Fix them (vislang data check FILE lists all of a file), or add --skip-bad-records to skip them."
        )
