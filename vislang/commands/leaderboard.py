"""``vislang leaderboard``: published numbers beside your own evaluations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vislang.commands.options import given, optional_positional, several
from vislang.errors import UserError

if TYPE_CHECKING:
    from vislang.evaluate.leaderboard import Board


@dataclass(frozen=True)
class Leaderboard:
    """Print published numbers of a task beside your own evaluations, and how their protocols differ.

    Attributes:
        task: a task or a data set, such as vqa or flickr30k; without one, all are listed
        runs: folders of evaluations (vislang eval --out), or folders that contain some
        json: print one JSON object
    """

    task: str | None = optional_positional()
    runs: list[Path] = several()
    json: bool = False

    def run(self) -> int:
        """Print the numbers; returns 0.

        Raises:
            UserError: nothing is published for this task, or a folder has no evaluation of it.
        """
        from vislang.evaluate.leaderboard import as_json, boards

        if self.task is None:
            if ignored := given(self, ("runs",)):
                raise UserError(f"{ignored}: give the task, too: vislang leaderboard TASK --runs DIR.")
            return self._list()
        found = boards(self.task, self.runs)
        if self.json:
            print(json.dumps(as_json(self.task, found)))
            return 0
        for board in found:
            self._print(board)
        return 0

    def _list(self) -> int:
        """Print how many numbers there are of each task and data set."""
        from rich.table import Table

        from vislang.console import console
        from vislang.evaluate.published import published

        counts: dict[tuple[str, str], list[str]] = {}
        for entry in published():
            counts.setdefault((entry.task, entry.data_set), []).append(entry.paper.rpartition("(")[2].rstrip(")"))
        if self.json:
            rows = [{"task": task, "data_set": name, "n": len(own)} for (task, name), own in counts.items()]
            print(json.dumps({"schema": 1, "published": rows}))
            return 0
        table = Table()
        for heading in ("task", "data set", "numbers", "papers"):
            table.add_column(heading)
        for (task, name), own in sorted(counts.items()):
            table.add_row(task, name, str(len(own)), "; ".join(dict.fromkeys(own)))
        console.print(table)
        return 0

    def _print(self, board: Board) -> None:
        from rich.markup import escape
        from rich.table import Table

        from vislang.console import console
        from vislang.evaluate.leaderboard import nearest
        from vislang.metrics.figure import metric

        title = metric(board.metric).title
        table = Table(title=f"{board.data_set}, {board.split}: {title}", title_justify="left")
        table.add_column("model", overflow="fold")
        table.add_column("shots", justify="right")
        table.add_column(f"{title} (x 100)", justify="right", no_wrap=True)
        table.add_column("learning", overflow="fold")
        table.add_column("source", overflow="fold")
        for entry in board.entries:
            value = _printed(entry.value) + ("" if entry.sd is None else f" ± {_printed(entry.sd)}")
            selected = entry.select if entry.shots else ""
            learning = ", ".join(word for word in (entry.learning, selected, entry.labels) if word)
            source = f"{entry.source}{f' (by {entry.by})' if entry.by else ''}"
            table.add_row(entry.model, _shots(entry.shots), value, learning, source)
        for number, score in enumerate(board.scores, start=1):
            name = f"[bold]yours {number}: {escape(score.model)}[/bold]"
            low, high = score.figure.low, score.figure.high
            interval = "" if low is None or high is None else f" ({_printed(low)} to {_printed(high)})"
            learning = "in context" if score.shots is not None else ""
            value = _printed(score.figure.value) + interval
            table.add_row(name, _shots(score.shots), value, learning, escape(str(score.folder)))
        console.print(table)
        for note in dict.fromkeys(entry.note for entry in board.entries if entry.note):
            console.print(f"  {note}", markup=False)
        for read_in in dict.fromkeys(entry.read_in for entry in board.entries if entry.read_in):
            console.print(f"  Read in: {read_in}.", markup=False)
        for number, score in enumerate(board.scores, start=1):
            for entry in nearest(score, board.entries):
                differences = score.differences(entry)
                told = "; ".join(differences) if differences else "no difference in protocol is known"
                where = f"{entry.source}{f', {entry.shots} shots' if entry.shots is not None else ''}"
                console.print(f"  * yours {number} against {where}: {told}", markup=False)
        console.print()


def _shots(shots: int | None) -> str:
    return "" if shots is None else str(shots)


def _printed(value: float) -> str:
    """A value as papers print it: 100 times as much, with one decimal, or two where the second one is not 0.

    >>> _printed(0.545), _printed(0.7055)
    ('54.5', '70.55')
    """
    return f"{100 * value:.2f}".removesuffix("0")
