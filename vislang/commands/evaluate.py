"""``vislang eval``: score a saved model, or a file of predictions, on a task."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vislang.commands.options import given, optional_positional
from vislang.commands.outputs import must_hold_file, must_hold_folder
from vislang.commands.pack import opened_pack, pack_path
from vislang.console import console, reporting
from vislang.data.problems import DataError, Problem, must_be_good
from vislang.errors import UserError, needs

FEW_SHOT = ("draws", "seeds", "select", "selector", "orders")
"""Options that have an effect only with --shots."""

PREDICTIONS = (".jsonl", ".json", ".csv")
"""Endings of files of predictions."""

ONE_PROMPT = ("way", "head", "regions", "shortlist", "shortlist_size", "pack")
"""Options that have no effect with --shots."""


@dataclass(frozen=True)
class Evaluate:
    """Score a model, or a file of predictions, on a task.

    Attributes:
        model: folder of a model, a Hub id, or a file of predictions; with --like, the model of the card if left out
        task: a task (vislang tasks lists them), such as easy-vqa, vqa:FOLDER or retrieval:FOLDER; or any data source
            whose records have targets, such as my.jsonl
        data: the folder of the benchmark named by --task; or, without --task, a data source
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
        draws: with --shots: how often random shots are drawn
        seeds: the same as --draws
        select: with --shots: how shots are selected: at random, or retrieved by the similarity of their images
        selector: with retrieved shots: the model that compares images (default: the model's own vision tower)
        orders: with --shots: number of orders in which the shots of each draw are given
        pack: a file of examples that vislang pack wrote; they precede every prompt
        abstain: the largest share of given answers that may be wrong, such as 0.05; finds the confidence from which on
            the model should answer
        report: HTML page to write, with scores, curves, calibration and answers
        like: run the evaluation of this card.json again, and say what differs
        out: folder for results.json, predictions.jsonl, card.json and the benchmark's submission file
        skip_bad_records: skip bad records and count them
        json: print one JSON object
    """

    model: str | None = optional_positional()
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
    draws: int = 3
    seeds: int | None = None
    select: Literal["random", "retrieved", "both"] = "random"
    selector: str | None = None
    orders: int = 1
    pack: str | None = None
    abstain: float | None = None
    report: Path | None = None
    like: Path | None = None
    out: Path | None = None
    skip_bad_records: bool = False
    json: bool = False

    def run(self) -> int:
        """Print the scores; returns 0, or 1 if they differ from those of ``like``.

        Raises:
            UserError: the model cannot do what is asked, or the data cannot be used.
        """
        if self.like is not None:
            from vislang.commands.like import rerun

            return rerun(self, self.like)
        if self.model is None:
            raise UserError("give a model: its folder, or a Hub id. Or give --like card.json.")
        return self.evaluate()

    def evaluate(self) -> int:
        """Evaluate by the options; returns 0. The errors are those of :meth:`run`."""
        assert self.model is not None
        self._check()
        source = Path(self.model)
        if source.is_file():
            from vislang.commands.rescore import rescore

            return rescore(self, source)
        few_shot = self._few_shot()
        task, examples, bad = self.opened_task()
        task.must_be_answerable(examples)
        if not task.can_score(examples) and self.report is not None:
            raise DataError(f"--report: no record of {task.name} has a target, so there are no figures to draw.")
        if not task.can_score(examples) and self.out is None:
            raise DataError(
                f"{task.name}: no record has a target, so nothing can be scored. Use --out to write the predictions "
                "and the benchmark's submission file."
            )
        if self.shortlist is not None and task.kind != "pairs":
            raise UserError(f"--shortlist has no effect: {task.name} is not a task of pairs. Leave it out.")
        if few_shot is not None:
            return few_shot.run(task, examples, self.about(task, bad), self.card)
        from vislang.evaluate.evaluation import evaluate, must_have_way, way_of
        from vislang.evaluate.prefix import NOTHING
        from vislang.models.loading import load
        from vislang.train.device import device_of

        examples = task.subset(examples, self.limit, self.seed)
        shortlist = None if self.shortlist is None else load(self.shortlist, device_of(self.device))
        model = self._opened_model()
        way = self.way or way_of(model, task)
        must_have_way(model, task, way)
        prefix = NOTHING
        if self.pack is not None:
            if way not in ("generate", "rank"):
                raise UserError(f"--pack has no effect: {self.model} answers {task.name} by the way {way!r}.")
            prefix = opened_pack(model, self.model, Path(self.pack))
        if self.head is not None and way != "decide":
            raise UserError(f"--head has no effect: {self.model} answers {task.name} by the way {way!r}. Leave it out.")
        learns = way == "embed" or (way == "match" and task.kind == "text")
        if learns and task.support_split == task.default_split:
            raise UserError(
                f"{task.name}: {self.model} answers it by the way {way!r}, which takes its answers from the split "
                f"{task.support_split!r}. Evaluate another --split."
            )
        if shortlist is not None:
            from vislang.evaluate.retrieve import Shortlisted

            model = Shortlisted(model, shortlist, self.shortlist_size)
        # No example is evaluated with its own target.
        support = [] if task.support_split == task.default_split else task.support()
        card = self.card(task, examples, support if learns else ())
        evaluation = evaluate(
            model,
            task,
            examples,
            support,
            way=way,
            head=self.head,
            abstain=self.abstain,
            prefix=prefix,
            reporter=reporting,
        )
        about = {"model": self.model, **self.about(task, bad)}
        if self.shortlist is not None:
            about |= {"shortlist": self.shortlist, "shortlist_size": self.shortlist_size}
        if self.pack is not None:
            about["pack"] = self.pack
        return self.finish(task, evaluation, about, card)

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
        assert self.model is not None
        if Path(self.model).suffix in PREDICTIONS and not Path(self.model).exists():
            raise UserError(f"{self.model}: no such file. Give a file of predictions, or a model.")
        of_a_file = Path(self.model).is_file()
        if of_a_file and (ignored := given(self, ("shots", *FEW_SHOT, *ONE_PROMPT))):
            raise UserError(f"{ignored}: no effect, because {self.model} is a file of predictions. Leave it out.")
        if self.abstain is not None and not 0 < self.abstain < 1:
            raise UserError(f"--abstain is {self.abstain}; it must be between 0 and 1, such as 0.05.")
        if self.pack is not None:
            pack_path(Path(self.pack))
            if self.abstain is not None:
                raise UserError("--abstain: not used together with --pack. Leave one out.")
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

        if self.seeds is not None and given(self, ("draws",)) and self.seeds != self.draws:
            raise UserError(f"--seeds {self.seeds} and --draws {self.draws} are the same option. Leave one out.")
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(FewShot)}
        return FewShot(**{**values, "draws": self.draws if self.seeds is None else self.seeds})

    def spec(self) -> str:
        """The task as one word, such as ``vqa:FOLDER``."""
        if self.task is None and self.data is None:
            raise UserError("give a --task (vislang tasks lists them), or data of your own with --data.")
        if self.data is None:
            assert self.task is not None
            return self.task
        if self.task is None:
            return self.data
        from vislang.tasks.catalogue import TASKS

        if self.task in TASKS and not TASKS[self.task].needs:
            raise UserError(f"--data: {self.task} comes with its own data. Leave out --data or --task.")
        return f"{self.task}:{self.data}"

    def opened_task(self) -> tuple[Any, list[Any], int]:
        """The task, whose default split is the given one; its examples; the number of bad records that were skipped."""
        from vislang.tasks.catalogue import open_task

        spec = self.spec()
        problems: list[Problem] = []
        with reporting("reading records") as progress:
            task = open_task(spec, self.split, problems, progress)
            examples = task.examples(task.default_split, problems, progress)
        must_be_good(problems, self.skip_bad_records, spec)
        if not examples:
            raise DataError(f"{task.name}: contains no valid records.")
        return task, examples, len(problems)

    def _opened_model(self) -> Any:
        from vislang.models.loading import load
        from vislang.train.device import device_of

        assert self.model is not None
        device = device_of(self.device)
        if self.regions is None:
            return load(self.model, device)
        from vislang.models.regions.readers import RegionsConfig

        return load(self.model, device, regions=RegionsConfig(tower=None, files=self.regions))

    def about(self, task: Any, bad: int) -> dict[str, Any]:
        """What the results record of the command, so that its predictions can be scored again."""
        return {
            "spec": self.spec(),
            "split": task.default_split,
            "limit": self.limit,
            "seed": self.seed,
            "bad_records": bad,
        }

    def _command(self, about: dict[str, Any]) -> str:
        """The command that was run."""
        options = {"task": about["spec"], "split": about["split"], "limit": about["limit"], "seed": about["seed"]}
        options |= {"way": self.way, "head": self.head, "abstain": self.abstain, "pack": self.pack}
        named = (f"--{name} {value}" for name, value in options.items() if value is not None)
        return " ".join([f"vislang eval {self.model}", *named])

    def options(self) -> dict[str, Any]:
        """The options that decide the result, as they are in a card."""
        from vislang.commands.like import NOT_IN_CARDS

        names = [field.name for field in dataclasses.fields(self) if field.name not in NOT_IN_CARDS]
        return {name: getattr(self, name) for name in names}

    def card(self, task: Any, examples: Any, support: Any) -> dict[str, Any]:
        """The card of an evaluation before the model runs; see :func:`vislang.evaluate.card.card_of`.

        Raises:
            UserError: it differs from the card of ``--like`` in the data, the scorer or the model.
        """
        from vislang.evaluate.card import card_of
        from vislang.models.loading import identity
        from vislang.runs.folder import environment

        assert self.model is not None
        model = {"source": self.model, **identity(self.model)}
        if self.pack is not None:
            model["pack_sha256"] = hashlib.sha256(Path(self.pack).read_bytes()).hexdigest()
        card = card_of(task, examples, support, model=model, options=self.options(), environment=environment())
        if self.like is not None:
            from vislang.commands.like import must_match

            must_match(self.like, card)
        return card

    def finish(self, task: Any, evaluation: Any, about: dict[str, Any], card: dict[str, Any]) -> int:
        """Write the files, and print the figures; returns 0.

        Args:
            task: the task.
            evaluation: the result.
            about: what else the results record.
            card: the score card, before the model ran.
        """
        values = {**evaluation.as_json(), **about}
        if self.out is not None or self.report is not None:
            from vislang.evaluate.results import card_after, write_evaluation
            from vislang.runs.folder import environment, versions

            card = card_after(evaluation, task, card)
            if self.out is not None:
                write_evaluation(self.out, evaluation, task, {**about, **environment()}, card)
            if self.report is not None:
                from vislang.evaluate.evaluation_page import write_evaluation_page

                title = f"{task.name}: {self.model}"
                write_evaluation_page(self.report, title, task, evaluation, card, self._command(about), versions())
        if self.json:
            print(json.dumps(values))
            return 0
        from vislang.evaluate.tables import evaluation_table

        if about["bad_records"]:
            console.print(f"skipped {about['bad_records']} bad records")
        if evaluation.figures:
            console.print(evaluation_table({task.name: values}))
        else:
            console.print(f"{len(evaluation.predictions):,} predictions; no record has a target, so none was scored")
        if evaluation.abstention is not None:
            console.print(evaluation.abstention.in_words)
        if self.out is not None:
            console.print(f"wrote results and predictions to [bold]{self.out}[/bold]")
        if self.report is not None:
            console.print(f"wrote the page [bold]{self.report}[/bold]")
        return 0
