"""``vislang paths``: the paths of R2R that a model chooses from, made from the graph of a building."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vislang.commands.options import positional
from vislang.commands.outputs import must_hold_file
from vislang.console import console, reporting
from vislang.errors import UserError
from vislang.files import write_text


@dataclass(frozen=True)
class Paths:
    """Make the paths that a model chooses from in R2R, and write them as a beam file.

    They are all paths from the start of an instruction that visit no viewpoint twice. A speaker ranks them: a model
    that gives the likelihood of the instruction after the images of a path (Fried et al. 2018). The goal is not used.

    Attributes:
        folder: folder with the files of R2R
        split: the split of the instructions, such as val_unseen
        speaker: folder of a model that ranks the paths; without one, all paths are kept, short ones first
        keep: number of paths of each instruction that the speaker keeps
        shortest: least number of steps of a path; those of R2R have 4 to 6
        longest: greatest number of steps of a path; the number of paths grows threefold with each
        out: the beam file (default: beams_SPLIT.json in the folder)
        device: where the speaker runs: auto, cpu, cuda or mps
    """

    folder: Path = positional()
    split: str = positional()
    speaker: str | None = None
    keep: int = 30
    shortest: int = 4
    longest: int = 6
    out: Path | None = None
    device: str = "auto"

    def run(self) -> int:
        """Write the file; returns 0.

        Raises:
            UserError: the speaker cannot rank, or an option is out of range.
            DataError: the folder or the split cannot be used, or an instruction has no path of this length.
        """
        if not 0 <= self.shortest <= self.longest or self.keep < 1:
            raise UserError("--shortest must be from 0 to --longest, and --keep must be at least 1.")
        from vislang.tasks.benchmarks.r2r import R2R

        task = R2R(self.folder)
        examples = task.examples(self.split)
        split = next(name for name in task.splits if name.startswith(self.split))
        out = self.out or self.folder / f"beams_{split}.json"
        must_hold_file(out, "--out")
        speaker = None if self.speaker is None else self._speaker(task)
        records: list[dict[str, Any]] = []
        with reporting("ranking paths" if speaker else "making paths") as progress:
            for number, example in enumerate(examples, start=1):
                given = task.paths_from_start(example, self.shortest, self.longest)
                record: dict[str, Any] = {"instr_id": example.id}
                order = list(range(len(given.choices)))
                if speaker is not None:
                    from vislang.evaluate.rank import rank

                    (spoken,) = rank(speaker, [given])
                    order = np.argsort(-np.array(spoken.scores), kind="stable").tolist()[: self.keep]
                    record["scores"] = [spoken.scores[n] for n in order]
                records.append({**record, "ranked_paths": [task.path_of(example.id, n) for n in order]})
                progress(number, len(examples))
        write_text(out, json.dumps(records))
        count = sum(len(record["ranked_paths"]) for record in records)
        console.print(f"wrote [bold]{out}[/bold]: {count:,} paths for {len(records):,} instructions")
        return 0

    def _speaker(self, task: Any) -> Any:
        """The model that ranks.

        Raises:
            UserError: it cannot.
        """
        from vislang.evaluate.ways import ways
        from vislang.models.loading import load
        from vislang.train.device import device_of

        model = load(self.speaker or "", device_of(self.device))
        if "rank" not in ways(model, task):
            raise UserError(
                f"--speaker {self.speaker}: a {type(model).__name__} does not give the likelihood of an instruction "
                "after several images. Give a Flamingo."
            )
        return model
