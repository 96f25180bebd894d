"""``vislang report``: write the HTML report of a run again, from the files in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vislang.commands.options import positional
from vislang.errors import needs


@dataclass(frozen=True)
class Report:
    """Write the HTML report of a finished run again.

    Attributes:
        run_folder: folder of the run
    """

    run_folder: Path = positional()

    def run(self) -> int:
        """Write ``report.html``; returns 0."""
        needs("jinja2", "report", "a report")
        needs("matplotlib", "report", "a report")
        from vislang.runs.run import draw_report, reopened

        draw_report(reopened(self.run_folder), self.run_folder)
        return 0
