"""``vislang report``: draw a run's page, or one that compares runs, from what lies in their folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vislang.commands.options import positional
from vislang.commands.outputs import must_hold_file
from vislang.console import console
from vislang.errors import needs


@dataclass(frozen=True)
class Report:
    """Draw the page of a run, finished or still training; of several runs, a page that compares them.

    Attributes:
        runs: folder of the run, or of each run to compare
        out: the page (default: report.html in the folder of the run; comparison.html for several)
    """

    runs: list[Path] = positional()
    out: Path | None = None

    def run(self) -> int:
        """Write the page; returns 0."""
        needs("jinja2", "report", "a report")
        needs("matplotlib", "report", "a report")
        from vislang.evaluate.compare_page import write_compare_page
        from vislang.evaluate.run_page import write_run_page
        from vislang.runs.record import read_record, read_records
        from vislang.runs.run import draw_report, reopened

        several = len(self.runs) > 1
        page = self.out or (Path("comparison.html") if several else self.runs[0] / "report.html")
        if several:
            records = read_records(self.runs)
            must_hold_file(page, "--out")
            write_compare_page(page, records)
        else:
            (folder,) = self.runs
            record = read_record(folder)
            must_hold_file(page, "--out")
            if record.metrics is not None:
                draw_report(reopened(folder), folder, page)
                return 0
            write_run_page(page, record)
        console.print(f"[bold]{page}[/bold] shows the run{'s' if several else ''}")
        return 0
