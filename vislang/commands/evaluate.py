"""``vislang eval``: score a saved model, or a file of predictions, on a task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vislang.commands.options import positional
from vislang.commands.outputs import must_hold_file, must_hold_folder
from vislang.console import console, reporting
from vislang.data.problems import DataError, Problem, must_be_good
from vislang.errors import UserError

FEW_SHOT = ("seeds", "select", "selector", "orders", "report")
"""Options that only --shots goes by."""


@dataclass(frozen=True)
class Evaluate:
    """Score a model, or a file of predictions, on a task.

    Attributes:
        model: folder of a model, a Hub id, or a file of predictions
        task: a task (vislang tasks lists them), such as easy-vqa, vqa:FOLDER, retrieval:FOLDER or my.jsonl
        data: the same as part of --task: the folder of a benchmark's files, or a JSON Lines file
        split: which split, as the data call it
        head: which of the model's heads decides, where several could
        device: where the model runs: auto, cpu, cuda or mps
        way: how to answer, where the model has several ways
        regions: region files, for a model that was trained on such
        shortlist: for retrieval: a dual encoder that chooses which pairs are scored
        shortlist_size: how many candidates it chooses for each text and each image
        limit: at most so many examples, drawn by seed
        seed: of the draw
        shots: numbers of examples in the prompt, such as 0,4,8
        seeds: with --shots: how often they are drawn
        select: with --shots: drawn at random, or retrieved by the similarity of their images
        selector: with retrieved shots: a model that compares images; without one, the model's own vision tower does
        orders: with --shots: average over so many orders of them
        report: with --shots: page with the curves to write
        out: folder for results.json, predictions.jsonl and the benchmark's submission file
        skip_bad_records: leave bad records out and count them
        json: one JSON object on standard output
    """

    model: str = positional()
    task: str | None = None
    data: str | None = None
    split: str | None = None
    head: str | None = None
    device: str = "auto"
    way: Literal["generate", "rank", "decide", "match", "embed"] | None = None
    regions: str | None = None
    shortlist: str | None = None
    shortlist_size: int = 50
    limit: int = 0
    seed: int = 0
    shots: str | None = None
    seeds: int = 3
    select: Literal["random", "retrieved", "both"] = "random"
    selector: str | None = None
    orders: int = 1
    report: Path | None = None
    out: Path | None = None
    skip_bad_records: bool = False
    json: bool = False

    def run(self) -> int:
        """Print the scores; returns 0.

        Raises:
            UserError: the model cannot do what is asked, or the data cannot be used.
        """
        self._check()
        source = Path(self.model)
        if source.is_file():
            return self._predictions(source)
        task, examples, bad = self._opened_task(self._spec(), self.split)
        if not examples:
            raise DataError(f"{task.name}: no good record in it.")
        if self.shots is not None:
            from vislang.commands.few_shot import few_shot

            return few_shot(self, task, examples, bad)
        from vislang.evaluate.evaluation import evaluate, must_have_way, way_of

        examples = task.subset(examples, self.limit, self.seed)

        model = self._opened_model()
        way = self.way or way_of(model, task)
        must_have_way(model, task, way)
        self._must_apply(task, way)
        if task.kind == "pairs" and self.shortlist is not None:
            from vislang.evaluate.retrieve import Shortlisted
            from vislang.models.loading import load
            from vislang.train.device import device_of

            shortlist = load(self.shortlist, device_of(self.device))
            model = Shortlisted(model, shortlist, self.shortlist_size)
        support = task.support() if way in ("match", "embed") or task.support_split is not None else []
        evaluation = evaluate(model, task, examples, support, way=way, head=self.head, reporter=reporting)
        values = {"model": self.model, **evaluation.as_json(), **self._about(bad)}
        if self.out is not None:
            from vislang.evaluate.results import write_evaluation
            from vislang.runs.folder import environment

            write_evaluation(self.out, evaluation, task, {**values, **environment()})
        return self.show(task.name, values)

    def _check(self) -> None:
        """What can be said of the options alone."""
        if self.out is not None:
            must_hold_folder(self.out)
        if self.report is not None:
            must_hold_file(self.report, "--report")
        if self.limit < 0 or self.shortlist_size < 1:
            raise UserError("--limit must not be negative, and --shortlist-size is at least 1.")
        defaults = Evaluate.__dataclass_fields__
        given = [name for name in FEW_SHOT if getattr(self, name) != defaults[name].default]
        if self.shots is None and given:
            raise UserError(f"--{', --'.join(given)}: only --shots goes by these; add it, or leave them out.")

    def _spec(self) -> str:
        """The task as it is named in one word."""
        if self.task is None and self.data is None:
            raise UserError("name a --task (vislang tasks lists them), or a file of your own with --data.")
        if self.data is None:
            assert self.task is not None
            return self.task
        if self.task is None:
            return self.data
        from vislang.tasks.catalogue import TASKS

        if self.task in TASKS and not TASKS[self.task].needs:
            raise UserError(f"--data: {self.task} comes with its data; leave --data out, or --task.")
        return f"{self.task}:{self.data}"

    def _opened_task(self, spec: str, split: str | None) -> tuple[Any, list[Any], int]:
        """The task, its examples, and how many bad records were left out."""
        from vislang.tasks.catalogue import open_task

        problems: list[Problem] = []
        with reporting("reading records") as progress:
            task = open_task(spec, None, problems, progress)
            examples = task.examples(split or task.default_split, problems, progress)
        must_be_good(problems, self.skip_bad_records, spec)
        return task, examples, len(problems)

    def _opened_model(self) -> Any:
        from vislang.models.loading import load
        from vislang.train.device import device_of

        device = device_of(self.device)
        if self.regions is None:
            return load(self.model, device)
        from vislang.models.regions.readers import RegionsConfig

        return load(self.model, device, regions=RegionsConfig(tower=None, files=self.regions))

    def _must_apply(self, task: Any, way: str) -> None:
        """Raise an error for options that would be ignored."""
        ignored = {
            "--head": self.head is not None and way != "decide",
            "--shortlist": self.shortlist is not None and task.kind != "pairs",
        }
        for option, is_ignored in ignored.items():
            if is_ignored:
                raise UserError(
                    f"{option}: {self.model} answers {task.name} by {way}, which does not use it; leave it out."
                )

    def _about(self, bad: int) -> dict[str, Any]:
        """What else results record of the command."""
        about = {"spec": self._spec(), "split": self.split, "limit": self.limit, "seed": self.seed, "bad_records": bad}
        if self.shortlist is not None:
            about |= {"shortlist": self.shortlist, "shortlist_size": self.shortlist_size}
        return about

    def _predictions(self, file: Path) -> int:
        """Score a file of predictions: the one of an evaluation, or one in a benchmark's official format."""
        recorded: dict[str, Any] = {}
        if self.task is None and self.data is None:
            recorded = self._recorded(file)
        spec = recorded.get("spec") or self._spec()
        limit, seed = recorded.get("limit", self.limit), recorded.get("seed", self.seed)
        task, examples, bad = self._opened_task(spec, recorded.get("split") or self.split)
        split = recorded.get("split") or self.split or task.default_split
        examples = task.subset(examples, limit, seed)
        predictions = task.read_predictions(file, examples)
        from vislang.metrics.figure import SCHEMA, figures_as_json

        figures = figures_as_json(task.score(examples, predictions))
        values = {"schema": SCHEMA, "task": task.name, "way": "file", "n": len(examples), "figures": figures}
        about = {"spec": spec, "split": split, "limit": limit, "seed": seed, "bad_records": bad}
        return self.show(task.name, {"predictions": str(file), **values, **about})

    def _recorded(self, file: Path) -> dict[str, Any]:
        """What ``results.json`` beside a file of predictions says of how it was made."""
        results = file.with_name("results.json")
        if not results.is_file():
            raise UserError(
                f"{file}: name the --task that these predictions are of (there is no results.json beside it)."
            )
        from vislang.runs.folder import read_json

        values = read_json(results)
        if not isinstance(values, dict) or "spec" not in values:
            raise UserError(f"{results}: does not say which task was scored; name the --task.")
        return values

    def show(self, name: str, values: dict[str, Any]) -> int:
        """Print the values; returns 0."""
        if self.json:
            print(json.dumps(values, default=str))
            return 0
        from vislang.evaluate.tables import evaluation_table

        if values.get("bad_records"):
            console.print(f"left out {values['bad_records']} bad records")
        console.print(evaluation_table({name: values}))
        if self.out is not None:
            console.print(f"[bold]{self.out}[/bold] has the results and the predictions")
        return 0
