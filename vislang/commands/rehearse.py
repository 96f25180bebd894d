"""``vislang rehearse``: whether a recipe's run can be interrupted, tried out on this machine."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vislang.commands.options import overrides, positional
from vislang.commands.outputs import must_hold_folder
from vislang.console import console, messages
from vislang.errors import UserError
from vislang.metrics.figure import SCHEMA

if TYPE_CHECKING:
    from vislang.runs.rehearse import Case, Rehearsal


@dataclass(frozen=True)
class Rehearse:
    """Kill and resume copies of a short run of a recipe, and compare them with the uninterrupted run. Any value of the
    recipe can be changed, such as --train.batch_size 4.

    Attributes:
        recipe: YAML file
        kills: how many kills, by SIGKILL and SIGTERM, at random moments and while checkpoints are written
        processes: numbers of processes, such as 1,2; one copy goes from each to the next
        steps: steps of each run (default: 12, or fewer if the recipe has fewer)
        seed: of the moments of the kills
        grace: seconds in which a run that SIGTERM stops has to save and to end
        tolerance: largest difference of a loss with another number of processes, as a share of the loss
        data: data to train on: a file, a folder, or the name of a data set (vislang data list)
        out: folder for all runs, which are kept (default: a temporary folder, kept only if a promise was broken)
        device: where to train: auto, cpu, cuda or mps; the same as --train.device
        parallel: how several processes share the work: ddp or fsdp2
        json: one JSON object on standard output
    """

    recipe: Path = positional()
    kills: int = 5
    processes: str = "1"
    steps: int | None = None
    seed: int = 0
    grace: float = 30.0
    tolerance: float = 0.01
    data: str | None = None
    out: Path | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None
    parallel: Literal["ddp", "fsdp2"] | None = None
    json: bool = False
    overrides: list[str] = overrides()

    def run(self) -> int:
        """Rehearse; returns 0, or 1 if a promise was broken.

        Raises:
            UserError: the recipe cannot be trained, or not be rehearsed like this.
        """
        from vislang.runs.rehearse import RunFailed, Settings, rehearse

        changes = [*self.overrides]
        changes += [f"--data={self.data}"] if self.data is not None else []
        changes += [f"--train.device={self.device}"] if self.device is not None else []
        counts = _numbers(self.processes)
        settings = Settings(
            *(self.recipe, changes, self.kills, counts, self.steps, self.seed, self.tolerance),
            *(self.parallel or "", self.grace),
        )
        if self.out is None:
            folder = Path(tempfile.mkdtemp(prefix="vislang-rehearsal-"))
        else:
            folder = self.out
            must_hold_folder(folder)
            if folder.exists() and any(folder.iterdir()):
                raise UserError(f"--out {folder}: is not empty. Choose another folder.")
            folder.mkdir(parents=True, exist_ok=True)
        try:
            found = rehearse(settings, folder, self.out is not None, _say)
        except RunFailed:
            raise
        except BaseException:
            if self.out is None:
                shutil.rmtree(folder)
            raise
        if self.json:
            print(json.dumps(as_json(found)))
        else:
            _show(found, str(self.recipe))
        return 0 if found.kept else 1


def as_json(found: Rehearsal) -> dict[str, Any]:
    """What a rehearsal found, as JSON; a difference that is not a number is null."""
    whole = {
        "schema": SCHEMA,
        "kept": found.kept,
        "exact": found.exact,
        "largest_difference": found.largest_difference,
        "steps": found.steps,
        "checkpoint_every": found.checkpoint_every,
        "tolerance": found.tolerance,
        "draws": found.draws,
        "kills": [{**asdict(kill), "lost": kill.lost} for kill in found.kills],
        "cases": [asdict(case) for case in found.cases],
        "folder": None if found.folder is None else str(found.folder),
    }
    return _finite(whole)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(listed: str) -> list[int]:
    try:
        return [int(word) for word in listed.split(",")]
    except ValueError:
        raise UserError(f"--processes {listed}: give numbers with commas between them, such as 1,2.") from None


def _say(line: str) -> None:
    messages.print(line, markup=False, soft_wrap=True)


def _show(found: Rehearsal, name: str) -> None:
    kills = Table("copy", "processes", "signal", "to", "when", "lost", "ended in", box=SIMPLE_HEAD, pad_edge=False)
    for kill in found.kills:
        lost = f"{kill.lost} step{'s' if kill.lost != 1 else ''}"
        row = (kill.copy, str(kill.processes), kill.signal, kill.to, kill.moment, lost, f"{kill.seconds:.1f} s")
        kills.add_row(*row)
    columns = ("copy", "processes", "promised", "largest difference of a loss", "kept")
    cases = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for case in found.cases:
        counts = " to ".join(map(str, case.processes))
        kept = "yes" if case.kept else "[red]no[/red]"
        cases.add_row(case.copy, counts, _promise(case, found), _difference(case), kept)
    console.print(
        f"{name}: {found.steps} steps, a checkpoint every {found.checkpoint_every}, {len(found.kills)} kills",
        markup=False,
    )
    console.print(kills)
    console.print(cases)
    for case in found.cases:
        _say_case(case)
    if found.kept:
        console.print("every promise was kept")
    else:
        console.print(f"[red]a promise was broken[/red]; all runs and what they printed are in {found.folder}")


def _say_case(case: Case) -> None:
    """What was exact, what was not, and why."""
    apart = ", ".join(f"{name} {_number(gap)}" for name, gap in case.differences.items())
    console.print(case.copy, markup=False)
    for what, told in (("exact", ", ".join(case.exact)), ("not exact", apart), ("why", case.why)):
        if told:
            console.print(f"  {what}: {told}", markup=False, soft_wrap=True)


def _promise(case: Case, found: Rehearsal) -> str:
    return {
        "exact": "bit for bit",
        "tolerance": f"within {100 * found.tolerance:g} %",
        "none": "bit for bit up to the change",
    }[case.promise]


def _difference(case: Case) -> str:
    if case.largest_difference == 0:
        return "0"
    share = 100 * case.relative_difference
    return f"{_number(case.largest_difference)}" + (f" ({share:.2g} %)" if math.isfinite(share) else "")


def _number(gap: float) -> str:
    return f"{gap:.1e}" if math.isfinite(gap) else "(cannot be compared)"
