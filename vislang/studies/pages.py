"""What studies show: the index in Markdown and as a page, a page for each study, and JSON."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vislang.files import write_text
from vislang.metrics.figure import SCHEMA, figures_as_json, metric, show_difference
from vislang.studies.line import mean_line
from vislang.studies.study import Claim, Recorded, Row, Study, Verdict, minutes_spent, verdict_on

INDEX = "studies"
"""Name of the index, a Markdown file and a page."""

NO_RESULTS = "no results"

RULE = (
    "Each study tests a published claim with small models and short runs, and its verdict is computed from the results "
    "by one rule. Runs with the same seed are paired. A claim is supported if the 95 % interval of the difference lies "
    "above 0, not supported if it lies below 0, and otherwise undecided at this scale; so is a claim with one seed. A "
    "claim with several comparisons needs all of them. The interval is for other seeds (Student's t) and, where the "
    "metric has an interval of its own, for other test examples. A verdict is about these models, data and minutes. It "
    "neither confirms nor refutes a paper."
)


class Entry(NamedTuple):
    """A claim with its results and the verdict on it."""

    claim: Claim
    rows: Sequence[Row]
    verdict: Verdict

    @property
    def word(self) -> str:
        """The verdict in words."""
        return self.verdict.word or NO_RESULTS

    @property
    def cost(self) -> str:
        """Minutes of training: those of the results, or those that the study takes by default."""
        if spent := minutes_spent(self.rows):
            return f"{spent:.1f} min"
        return f"default {self.claim.minutes:g} min" if isinstance(self.claim, Study) and not self.rows else ""

    @property
    def differences(self) -> list[str]:
        """By how much the better arm is better than each other one, with intervals."""
        return [
            f"{self.claim.better} against {other}: {show_difference(self.claim.metric, figure)}"
            for other, figure in self.verdict.differences.items()
        ]

    @property
    def has_page(self) -> bool:
        """Whether the study has a page of its own."""
        return isinstance(self.claim, Study) and bool(self.rows)

    @property
    def command(self) -> str:
        """What repeats the study, with the same budget and seeds."""
        if isinstance(self.claim, Recorded):
            return self.claim.command
        command = f"vislang study {self.claim.name}"
        if not isinstance(self.claim, Study) or not self.rows:
            return command
        seeds = 1 + max(row["seed"] for row in self.rows)
        return f"{command} --budget {self.rows[0]['minutes'] * self.claim.run_lengths * seeds:.4g} --seeds {seeds}"

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON values."""
        of_claim = {name: getattr(self.claim, name) for name in ("name", "claim", "source", "metric", "better", "than")}
        return {
            **of_claim,
            "cost": self.cost,
            "verdict": self.verdict.word,
            "seeds": self.verdict.seeds,
            "differences": figures_as_json(self.verdict.differences),
        }


def entry_of(claim: Claim, out: Path) -> Entry:
    """A claim with what the folder of results has of it."""
    rows = claim.rows(out)
    return Entry(claim, rows, verdict_on(claim, rows))


def as_json(entries: Iterable[Entry]) -> dict[str, Any]:
    """Several entries as one JSON object."""
    return {"schema": SCHEMA, "studies": [entry.as_json() for entry in entries]}


def markdown(entries: Iterable[Entry]) -> str:
    """The index of studies."""
    lines = ["# Studies", "", RULE, "", "| study | claim | source | verdict | differences | seeds | training |"]
    lines.append(f"|{'---|' * 7}")
    for entry in entries:
        cells = [f"`{entry.claim.name}`", entry.claim.claim, entry.claim.source, entry.word]
        cells += ["; ".join(entry.differences), str(entry.verdict.seeds or ""), entry.cost]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_index(entries: Sequence[Entry], out: Path) -> None:
    """Write ``studies.md`` and, if the package that draws it is installed, ``studies.html``."""
    write_text(out / f"{INDEX}.md", markdown(entries))
    if _can_draw():
        from vislang.evaluate.page import template

        write_text(out / f"{INDEX}.html", template("studies").render(entries=entries, rule=RULE))


def write_page(entry: Entry, out: Path) -> Path | None:
    """Write the page of a study with results; returns it, or None if the package that draws it is not installed."""
    if not _can_draw():
        return None
    from vislang.evaluate.intervals import drawn
    from vislang.evaluate.page import template

    name = entry.claim.metric
    by_arm: dict[str, list[Row]] = {}
    for row in entry.rows:
        # A study may have further measures, with other metrics.
        if name in row["figures"]:
            by_arm.setdefault(row["arm"], []).append(row)
    means = {arm: mean_line(rows, name) for arm, rows in by_arm.items()}
    page = out / entry.claim.name / "page.html"
    runs = [
        [arm, row["seed"], row["steps"], round(row["seconds"] / 60, 1), round(means[arm].seeds[number], 4)]
        for arm, rows in by_arm.items()
        for number, row in enumerate(rows)
    ]
    shown = template("study").render(
        entry=entry,
        rule=RULE,
        title=metric(name).title,
        figures=drawn(name, {arm: line.mean for arm, line in means.items()}),
        runs=runs,
        settings=[[arm.name, arm.recipe.name, " ".join(arm.changes) or "none"] for arm in _arms(entry)],
    )
    write_text(page, shown)
    return page


def _arms(entry: Entry) -> Sequence[Any]:
    return entry.claim.trained_arms if isinstance(entry.claim, Study) else ()


def _can_draw() -> bool:
    return importlib.util.find_spec("jinja2") is not None
