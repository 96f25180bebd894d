"""``vislang study``: test a published claim with small models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vislang.commands.options import given, optional_positional
from vislang.commands.outputs import must_hold_folder
from vislang.console import console
from vislang.errors import UserError

if TYPE_CHECKING:
    from vislang.studies.pages import Entry


@dataclass(frozen=True)
class Study:
    """Test a published claim with small models: train each arm for each seed, and say whether the results support it.

    Attributes:
        name: the study (--list prints all), or a Python file with a STUDY of your own
        list: list the studies with claim, cost and, where there are results, verdict
        all: run all studies
        budget: minutes of training of a study; all its runs have equal shares (default: the study's own)
        seeds: number of seeds of each arm
        out: folder of the results and pages
        runs: folder of the training runs; only needed to continue them
        json: print one JSON object
    """

    name: str | None = optional_positional()
    list: bool = False
    all: bool = False
    budget: float | None = None
    seeds: int = 3
    out: Path = Path("studies")
    runs: Path = Path("runs/studies")
    json: bool = False

    def run(self) -> int:
        """Run the study, or print the list; returns 0.

        Raises:
            UserError: no such study, the budget is too small, or earlier results cannot be read.
        """
        from vislang.studies import study
        from vislang.studies.catalogue import all_claims, open_study
        from vislang.studies.pages import entry_of, write_index, write_page

        if [self.name is not None, self.list, self.all].count(True) != 1:
            raise UserError("give the name of a study, --list or --all.")
        claims = all_claims()
        if self.list:
            if ignored := given(self, ("budget", "seeds")):
                raise UserError(f"{ignored}: --list runs nothing; leave it out.")
            self._print([entry_of(claim, self.out) for claim in claims.values()])
            return 0
        if self.name is not None:
            studies = [open_study(self.name)]
        else:
            studies = [claim for claim in claims.values() if isinstance(claim, study.Study)]
        for one in studies:
            study.share_of(one, self.seeds, self.budget)
        for folder in (self.out, self.runs):
            must_hold_folder(folder)
        claims |= {one.name: one for one in studies}
        # With --json, nothing but the object is printed.
        quiet, console.quiet = console.quiet, self.json
        try:
            for one in studies:
                study.run(one, self.seeds, self.budget, self.out, self.runs)
                page = write_page(entry_of(one, self.out), self.out)
                write_index([entry_of(claim, self.out) for claim in claims.values()], self.out)
                console.print(f"{page or self.out / one.name / 'results.json'} has the results", markup=False)
        finally:
            console.quiet = quiet
        self._print([entry_of(one, self.out) for one in studies])
        return 0

    def _print(self, entries: Sequence[Entry]) -> None:
        from rich.table import Table

        from vislang.studies.pages import as_json

        if self.json:
            print(json.dumps(as_json(entries)))
            return
        if not self.list:
            for entry in entries:
                console.print(f"{entry.claim.name}: {entry.claim.claim}\n  {entry.word}", markup=False)
                for line in entry.differences:
                    console.print(f"  {line}", markup=False)
            return
        table = Table()
        for heading in ("study", "claim", "training", "verdict"):
            table.add_column(heading, overflow="fold")
        for entry in entries:
            table.add_row(entry.claim.name, entry.claim.claim, entry.cost, entry.word)
        console.print(table)
