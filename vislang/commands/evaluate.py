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

NOT_FEW_SHOT = ("way", "head", "shortlist", "shortlist_size")
"""Options that --shots does not go by."""

OF_MODEL = ("shots", "regions", *FEW_SHOT, *NOT_FEW_SHOT)
"""Options that a file of predictions does not go by."""


@dataclass(frozen=True)
class Evaluate:
    """Score a model, or a file of predictions, on a task.

    Attributes:
        model: folder of a model, a Hub id, or a file of predictions
        task: a task (vislang tasks lists them), such as easy-vqa, vqa:FOLDER or retrieval:FOLDER; or any data source
            whose records have a target, such as my.jsonl
        data: the same as part of --task: the folder of a benchmark's files, or a data source
        split: which split, as the data call it
        head: which of the model's heads decides, where several could
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
        file = Path(self.model)
        if file.is_file():
            self.must_be_default(OF_MODEL, f"{file} holds predictions, and this is for models; leave it out")
            from vislang.commands.rescore import rescore

            return rescore(self, file)
        task, examples, bad = self.opened_task()
        if not task.can_score(examples) and self.out is None:
            raise DataError(
                f"{task.name}: no record has a target, so there is nothing to score. --out FOLDER keeps the "
                "predictions and writes the benchmark's submission file."
            )
        if self.shots is not None:
            from vislang.commands.few_shot import few_shot

            return few_shot(self, task, examples, bad)
        from vislang.evaluate.evaluation import evaluate, must_have_way, way_of

        examples = task.subset(examples, self.limit, self.seed)
        model = self.opened_model()
        way = self.way or way_of(model, task)
        must_have_way(model, task, way)
        self._must_apply(task, way)
        if task.kind == "pairs" and self.shortlist is not None:
            from vislang.evaluate.retrieve import Shortlisted
            from vislang.models.loading import load

            model = Shortlisted(model, load(self.shortlist), self.shortlist_size)
        # What is asked must not be learned from.
        support = [] if task.support_split == task.default_split else task.support()
        evaluation = evaluate(model, task, examples, support, way=way, head=self.head, reporter=reporting)
        about = {"model": self.model, **self.about(task, bad)}
        if self.shortlist is not None:
            about |= {"shortlist": self.shortlist, "shortlist_size": self.shortlist_size}
        return self.finish(task, evaluation, about)

    def _check(self) -> None:
        """What can be said of the options alone."""
        if self.out is not None:
            must_hold_folder(self.out)
        if self.report is not None:
            must_hold_file(self.report, "--report")
        if self.limit < 0 or self.shortlist_size < 1:
            raise UserError("--limit must not be negative, and --shortlist-size is at least 1.")
        if self.shots is None:
            self.must_be_default(FEW_SHOT, "only --shots goes by this; add it, or leave this out")
        else:
            self.must_be_default(NOT_FEW_SHOT, "--shots does not go by this; leave one of them out")

    def must_be_default(self, names: tuple[str, ...], reason: str) -> None:
        """Raise an error where one of these options was given.

        Raises:
            UserError: it names the options and the reason.
        """
        defaults = Evaluate.__dataclass_fields__
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != defaults[name].default]
        if given:
            raise UserError(f"{', '.join(given)}: {reason}.")

    def spec(self) -> str:
        """The task as it is named in one word."""
        if self.task is None and self.data is None:
            raise UserError("name a --task (vislang tasks lists them), or a source of your own with --data.")
        if self.data is None:
            assert self.task is not None
            return self.task
        if self.task is None:
            return self.data
        from vislang.tasks.catalogue import TASKS

        if self.task in TASKS and not TASKS[self.task].needs:
            raise UserError(f"--data: {self.task} comes with its data; leave --data out, or --task.")
        return f"{self.task}:{self.data}"

    def opened_task(self) -> tuple[Any, list[Any], int]:
        """The task, whose default split is the one that was named; its examples; how many bad records were left out."""
        from vislang.tasks.catalogue import open_task

        spec = self.spec()
        problems: list[Problem] = []
        with reporting("reading records") as progress:
            task = open_task(spec, self.split, problems, progress)
            examples = task.examples(task.default_split, problems, progress)
        must_be_good(problems, self.skip_bad_records, spec)
        if not examples:
            raise DataError(f"{task.name}: no good record in it.")
        return task, examples, len(problems)

    def opened_model(self) -> Any:
        """The model, its regions from the files that were named."""
        from vislang.models.loading import load

        if self.regions is None:
            return load(self.model)
        from vislang.models.regions.readers import RegionsConfig

        return load(self.model, regions=RegionsConfig(tower=None, files=self.regions))

    def _must_apply(self, task: Any, way: str) -> None:
        """Raise an error for options that would be ignored, and for a split that is learned from."""
        ignored = {
            "--head": self.head is not None and way != "decide",
            "--shortlist": self.shortlist is not None and task.kind != "pairs",
        }
        for option, is_ignored in ignored.items():
            if is_ignored:
                raise UserError(
                    f"{option}: {self.model} answers {task.name} by {way}, which does not use it; leave it out."
                )
        learns = way == "embed" or (way == "match" and task.kind == "text")
        if learns and task.support_split == task.default_split:
            raise UserError(
                f"{task.name}: {self.model} answers it by {way}, and learns its answers from the split "
                f"{task.support_split}; name another --split."
            )

    def about(self, task: Any, bad: int) -> dict[str, Any]:
        """What results record of the command, so that its predictions can be scored again."""
        return {
            "spec": self.spec(),
            "split": task.default_split,
            "limit": self.limit,
            "seed": self.seed,
            "bad_records": bad,
        }

    def finish(self, task: Any, evaluation: Any, about: dict[str, Any]) -> int:
        """Write the files and print the figures; returns 0.

        Args:
            task: whose examples were answered.
            evaluation: what was scored.
            about: what else belongs to the results.
        """
        values = {**evaluation.as_json(), **about}
        if self.out is not None:
            from vislang.evaluate.results import write_evaluation
            from vislang.runs.folder import environment

            write_evaluation(self.out, evaluation, task, {**about, **environment()})
        if self.json:
            print(json.dumps(values))
            return 0
        from vislang.evaluate.tables import evaluation_table

        if values["bad_records"]:
            console.print(f"left out {values['bad_records']} bad records")
        if evaluation.figures:
            console.print(evaluation_table({task.name: values}))
        else:
            console.print(f"{len(evaluation.predictions):,} predictions; no record has a target to score them by")
        self.say_where()
        return 0

    def say_where(self) -> None:
        """Print where the files are, if any were written."""
        if self.out is not None:
            console.print(f"[bold]{self.out}[/bold] has the results and the predictions")
