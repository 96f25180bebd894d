"""``vislang data check``: every bad record of a file, with its line and the remedy."""

from __future__ import annotations

import json

from vislang.console import reporting
from vislang.data.jsonl import read_jsonl


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
