"""``vislang data check`` and ``vislang data fetch``: a user's own file, and data sets that come by package."""

from __future__ import annotations

import json

from rich.table import Table

from vislang.console import console, reporting
from vislang.data.fetch import DATA_SETS
from vislang.data.fetch import fetch as fetch_set
from vislang.data.jsonl import DataError, read_jsonl


def check(path: str, as_json: bool) -> int:
    """Print the problems of a file; returns 0 where there are none, else 1."""
    with reporting("checking records") as report:
        records = read_jsonl(path, progress=report)
    if as_json:
        problems = [{"line": problem.line, "message": problem.message} for problem in records.problems]
        print(json.dumps({"file": path, "good": len(records.examples), "bad": problems}))
    else:
        for problem in records.problems:
            print(problem)
        print(f"{path}: {len(records.examples)} good records, {len(records.problems)} bad")
    return 1 if records.problems else 0


def fetch(name: str | None, any_version: bool) -> int:
    """Bring a data set into the cache, or list them all; returns 0."""
    if name is None:
        table = Table()
        for heading in ("set", "what", "licence", "MB", "here"):
            table.add_column(heading)
        for data_set in DATA_SETS.values():
            here = "yes" if data_set.is_here else "no"
            table.add_row(data_set.name, data_set.about, data_set.licence, str(data_set.megabytes), here)
        console.print(table)
        return 0
    if name not in DATA_SETS:
        raise DataError(f"{name}: no such data set; there are {', '.join(DATA_SETS)}.")
    fetch_set(DATA_SETS[name], any_version, console.print)
    return 0
