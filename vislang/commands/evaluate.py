"""``vislang eval``: score a saved model, or a file of predictions, on a task."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vislang.commands.options import given, positional
from vislang.commands.outputs import must_hold_file, must_hold_folder
from vislang.console import console, reporting
from vislang.data.problems import DataError, Problem, must_be_good
from vislang.errors import UserError, needs

FEW_SHOT = ("seeds", "select", "selector", "orders", "report")
"""Options that have an effect only with --shots."""

ONE_PROMPT = ("way", "head", "regions", "shortlist", "shortlist_size")
"""Options that have no effect with --shots."""


@dataclass(frozen=True)
class Evaluate:
    """Score a model, or a file of predictions, on a task.

    Attributes:
        model: folder of a model, a Hub id, or a file of predictions
        task: a task (vislang tasks lists them), such as easy-vqa, vqa:FOLDER, retrieval:FOLDER or my.jsonl
        data: the folder of the benchmark named by --task; or, without --task, a JSON Lines file
        split: split to evaluate
        head: which of the model's heads decides, if several could
        device: where the model runs: auto, cpu, cuda or mps
        way: how to answer, if the model has several ways
        regions: region files, for a model that was trained on region files
        shortlist: for retrieval: a dual encoder that chooses which pairs are scored
        shortlist_size: number of candidates that it chooses for each text and each image
        limit: evaluate at most this many examples, drawn at random; 0 for all
        seed: seed of this draw
        shots: numbers of examples in the prompt, such as 0,4,8
        seeds: with --shots: how often random shots are drawn
        select: with --shots: how shots are selected: at random, or retrieved by the similarity of their images
        selector: with retrieved shots: the model that compares images (default: the model's own vision tower)
        orders: with --shots: average ranked answers over this many orders of the shots
        report: with --shots: HTML page to write, with the curves
        out: folder for results.json, predictions.jsonl and the benchmark's submission file
        skip_bad_records: skip bad records and count them
        json: print one JSON object
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
        few_shot = self._few_shot()
        task, examples, bad = self._opened_task(self._spec(), self.split)
        if not examples:
            raise DataError(f"{task.name}: no good record in it.")
        if self.shortlist is not None and task.kind != "pairs":
            raise UserError(f"--shortlist has no effect: {task.name} is not a task of pairs. Leave it out.")
        if few_shot is not None:
            return few_shot.run(task, examples, bad)
        from vislang.evaluate.evaluation import evaluate, must_have_way, way_of
        from vislang.models.loading import load
        from vislang.train.device import device_of

        examples = task.subset(examples, self.limit, self.seed)
        shortlist = None if self.shortlist is None else load(self.shortlist, device_of(self.device))
        model = self._opened_model()
        way = self.way or way_of(model, task)
        must_have_way(model, task, way)
        if self.head is not None and way != "decide":
            raise UserError(f"--head has no effect: {self.model} answers {task.name} by the way {way!r}. Leave it out.")
        if shortlist is not None:
            from vislang.evaluate.retrieve import Shortlisted

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
        """Check the options that need neither data nor a model."""
        if self.out is not None:
            must_hold_folder(self.out)
        if self.report is not None:
            must_hold_file(self.report, "--report")
            needs("jinja2", "report", "--report")
            needs("matplotlib", "report", "--report")
        if self.limit < 0:
            raise UserError(f"--limit is {self.limit}; it must not be negative. 0 takes all examples.")
        if self.shortlist_size < 1:
            raise UserError(f"--shortlist-size is {self.shortlist_size}; it must be at least 1.")
        of_a_file = Path(self.model).is_file()
        if of_a_file and (ignored := given(self, ("shots", *FEW_SHOT, *ONE_PROMPT, "out"))):
            raise UserError(f"{ignored}: no effect, because {self.model} is a file of predictions. Leave it out.")
        if self.shots is None and (ignored := given(self, FEW_SHOT)):
            raise UserError(f"{ignored}: only used together with --shots. Add --shots, or leave it out.")
        if self.shots is not None and (ignored := given(self, ONE_PROMPT)):
            raise UserError(f"{ignored}: not used together with --shots. Leave it out.")
        if self.shortlist is None and (ignored := given(self, ("shortlist_size",))):
            raise UserError(f"{ignored}: only used together with --shortlist. Add --shortlist, or leave it out.")

    def _few_shot(self) -> Any:
        """The few-shot evaluation that ``--shots`` asks for.

        Raises:
            UserError: an option is out of its range.
        """
        if self.shots is None:
            return None
        from vislang.commands.few_shot import FewShot

        return FewShot(**{field.name: getattr(self, field.name) for field in dataclasses.fields(FewShot)})

    def _spec(self) -> str:
        """The task as one word, such as ``vqa:FOLDER``."""
        if self.task is None and self.data is None:
            raise UserError("give a --task (vislang tasks lists them), or a file of your own with --data.")
        if self.data is None:
            assert self.task is not None
            return self.task
        if self.task is None:
            return self.data
        from vislang.tasks.catalogue import TASKS

        if self.task in TASKS and not TASKS[self.task].needs:
            raise UserError(f"--data: {self.task} comes with its own data. Leave out --data or --task.")
        return f"{self.task}:{self.data}"

    def _opened_task(self, spec: str, split: str | None) -> tuple[Any, list[Any], int]:
        """The task, its examples, and the number of bad records that were skipped."""
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

    def _about(self, bad: int) -> dict[str, Any]:
        """The options that ``results.json`` records."""
        about = {"spec": self._spec(), "split": self.split, "limit": self.limit, "seed": self.seed, "bad_records": bad}
        if self.shortlist is not None:
            about |= {"shortlist": self.shortlist, "shortlist_size": self.shortlist_size}
        return about

    def _predictions(self, file: Path) -> int:
        """Score a file of predictions: the ``predictions.jsonl`` of an evaluation, or a benchmark's submission file."""
        recorded: dict[str, Any] = {}
        if self.task is None and self.data is None:
            recorded = self._recorded(file)
            if ignored := given(self, ("split", "limit", "seed")):
                raise UserError(f"{ignored}: recorded in {file.with_name('results.json')}. Leave it out.")
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
        """The task, split and limit of a file of predictions, from the ``results.json`` in the same folder."""
        results = file.with_name("results.json")
        if not results.is_file():
            raise UserError(
                f"{file}: give the --task of these predictions (there is no results.json in the same folder)."
            )
        from vislang.runs.folder import read_json

        values = read_json(results)
        if not isinstance(values, dict) or "spec" not in values:
            raise UserError(f"{results}: does not name a task. Give the --task of these predictions.")
        return values

    def show(self, name: str, values: dict[str, Any]) -> int:
        """Print the values; returns 0."""
        if self.json:
            print(json.dumps(values, default=str))
            return 0
        from vislang.evaluate.tables import evaluation_table

        if values.get("bad_records"):
            console.print(f"skipped {values['bad_records']} bad records")
        console.print(evaluation_table({name: values}))
        if self.out is not None:
            console.print(f"wrote results and predictions to [bold]{self.out}[/bold]")
        return 0
