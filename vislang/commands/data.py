"""``vislang data``: lists the sets that come by package, shows records, checks a user's own file, fetches sets."""

from __future__ import annotations

import json
from pathlib import Path

from rich.padding import Padding
from rich.table import Table
from rich.text import Text as Styled

from vislang.commands.outputs import must_hold_file
from vislang.console import console, reporting
from vislang.data.fetch import DATA_SETS
from vislang.data.fetch import fetch as fetch_set
from vislang.data.jsonl import read_jsonl
from vislang.data.lines import line_of, target_line
from vislang.data.problems import DataError, Problem, must_be_good
from vislang.data.sources import FORMS, SOURCES, load_source, splits_of
from vislang.data.split import draw
from vislang.errors import UserError
from vislang.example import Example, kind_of
from vislang.metrics.figure import SCHEMA


def list_sources(as_json: bool) -> int:
    """Print every set that comes by package; returns 0."""
    if as_json:
        sources = {
            name: {
                "about": source.about,
                "target": source.kind,
                "media": sorted(source.media),
                "sizes": dict(source.sizes),
                "licence": source.licence,
                "data_set": source.data_set.name if source.data_set else None,
                "here": source.is_here,
            }
            for name, source in SOURCES.items()
        }
        print(json.dumps({"schema": SCHEMA, "sources": sources}, indent=2))
        return 0
    console.print(Styled.assemble((f"{'source':26}{'target':9}here", "dim")))
    for name, source in SOURCES.items():
        sizes = [f"{size:,}" + (f" {split}" if source.splits else "") for split, size in source.sizes.items()]
        here = ("yes", "green") if source.is_here else ("no", "yellow")
        console.print(Styled.assemble((f"{name:26}", "bold"), f"{source.kind:9}", here))
        about = Styled(f"{', '.join(sizes)}: {source.about} ({source.licence})", "dim")
        console.print(Padding(about, (0, 0, 0, 4)))
    console.print(f"\nWhat is not here is fetched when it is used. A source is {FORMS}.", markup=False)
    return 0


def show(source: str, split: str | None, count: int, out: Path) -> int:
    """Print a few records of a source, and write a page of them; returns 0.

    Raises:
        UserError: there is no such source, or the page cannot be written.
    """
    try:
        from vislang.evaluate.examples_page import write_examples
    except ImportError:
        raise UserError("data show: its page needs jinja2. Run: pip install 'vislang[report]'") from None
    must_hold_file(out, "--out")
    problems: list[Problem] = []
    if split is None and (splits := splits_of(source)):
        split = next((name for name in splits if name.startswith("train")), splits[0])
    with reporting("reading") as report:
        examples = load_source(source, split, problems, report)
    if not examples:
        must_be_good(problems, skip=False, name=source)
        raise DataError(f"{source}: nothing in it to show.")
    drawn = [examples[index] for index in sorted(draw(range(len(examples)), max(count, 1), seed=0))]
    for example in drawn:
        _print(example)
    bad = f", and {len(problems):,} bad (vislang data check lists them)" if problems else ""
    console.print(f"{len(drawn)} of {len(examples):,} good records{bad}", markup=False)
    title = f"{source}{f', {split}' if split else ''}"
    write_examples(out, title, drawn, len(examples))
    console.print(f"[bold]{out}[/bold] shows them")
    return 0


def _print(example: Example) -> None:
    rows = Table.grid(padding=(0, 1))

    def row(heading: str, text: str) -> None:
        rows.add_row("", Styled(f"{heading:8}", "dim"), Styled(text))

    console.print(Styled.assemble((example.id, "bold"), (f"  {example.source}", "dim")))
    if example.shots:
        first = example.shots[0]
        row("shots", f"{len(example.shots)}, the first: {line_of(first.prompt)} {target_line(first)}")
    if example.prompt.parts:
        row("prompt", line_of(example.prompt))
    for number, choice in enumerate(example.choices):
        row(f"choice {number}", line_of(choice))
    if example.target is not None:
        row("right" if example.choices else kind_of(example.target), target_line(example))
    console.print(rows)


def check(path: str, as_json: bool) -> int:
    """Print the problems of a file; returns 0 where there are none, else 1."""
    problems: list[Problem] = []
    with reporting("checking records") as report:
        examples = read_jsonl(path, problems, report)
    if as_json:
        bad = [{"line": problem.line, "message": problem.message} for problem in problems]
        print(json.dumps({"schema": SCHEMA, "file": path, "good": len(examples), "bad": bad}))
    else:
        for problem in problems:
            print(problem)
        print(f"{path}: {len(examples)} good records, {len(problems)} bad")
    return 1 if problems else 0


def fetch(name: str | None, any_version: bool) -> int:
    """Download a data set into the cache, or list them all; returns 0."""
    if name is None:
        table = Table()
        for heading in ("set", "content", "licence", "MB", "here"):
            table.add_column(heading)
        for data_set in DATA_SETS.values():
            here = "yes" if data_set.is_here else "no"
            table.add_row(data_set.name, data_set.about, data_set.licence, str(data_set.megabytes), here)
        console.print(table)
        return 0
    if name not in DATA_SETS:
        raise DataError(f"{name}: no such data set; there are {', '.join(DATA_SETS)}.")
    fetch_set(DATA_SETS[name], any_version, lambda line: console.print(line, markup=False))
    return 0
