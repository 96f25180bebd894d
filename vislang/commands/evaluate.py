"""``vislang eval``: score a saved model, or a file of predictions, on a benchmark or on a user's file."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vislang.capabilities import Generates, Matches, OldDecides, Trainable
from vislang.case import Case, Decision
from vislang.commands.deciding import task_name
from vislang.commands.figures import decision_table, figures
from vislang.commands.outputs import must_hold_file
from vislang.console import console, reporting
from vislang.data.jsonl import DataError, Problem, must_be_good
from vislang.data.split import draw
from vislang.document import Document
from vislang.errors import UserError
from vislang.evaluate.answering import answer, perplexity
from vislang.models.loading import load
from vislang.models.regions.readers import RegionsConfig
from vislang.tasks.benchmarks import BENCHMARKS
from vislang.tasks.captioned import PAIRS, captioned
from vislang.tasks.case_sources import CASE_SETS, read_source
from vislang.tasks.data_sets import evaluation_examples
from vislang.tasks.decisions import score_decisions
from vislang.tasks.question_sets import QUESTION_SETS
from vislang.tasks.retrieval import Collection, four_way, karpathy, of_documents, recalls, shortlist

RETRIEVAL = "retrieval"


@dataclass(frozen=True)
class Asked:
    """What to score on.

    Attributes:
        task: ``easy-vqa``, ``retrieval``, a benchmark, or None for a file alone.
        data: folder of a benchmark's files, or a file.
        split: of a benchmark; None for ``val``, and ``test`` of retrieval.
        head: which of a model's tasks decides.
        regions: region files of these images, for a model that was trained on region files.
        write: where to keep decisions.
        shortlist: folder of a faster model that chooses which pairs are scored at all.
        shortlist_size: of how many for each image and each text.
    """

    task: str | None
    data: str | None
    split: str | None = None
    head: str | None = None
    regions: str | None = None
    write: Path | None = None
    shortlist: str | None = None
    shortlist_size: int = 50

    @property
    def title(self) -> str:
        """What to call it."""
        named = [part for part in (self.task, self.data, self.split) if part is not None]
        return " ".join(named)


def evaluate(source: str, asked: Asked, limit: int, seed: int, skip_bad_records: bool, as_json: bool) -> int:
    """Print the score; returns the exit status.

    With ``limit`` the examples are drawn by ``seed``, not the first ones of the file, which may be alike.

    Raises:
        UserError: the model cannot do what is asked, or the data cannot be used.
    """
    if asked.task is None and asked.data is None:
        raise UserError("eval: name a --task, a --data file, or both.")
    if asked.write is not None:
        must_hold_file(asked.write, "--write")
    if asked.shortlist_size < 1:
        raise UserError(f"--shortlist-size is {asked.shortlist_size}; it must be at least 1.")
    known = dict.fromkeys([*QUESTION_SETS, *CASE_SETS, RETRIEVAL, *BENCHMARKS])
    if asked.task is not None and asked.task not in known:
        raise UserError(f"--task {asked.task}: known are {', '.join(known)}.")
    if asked.task in BENCHMARKS:
        _refuse(asked, "shortlist")
        return _benchmark(source, asked, limit, seed, as_json)
    if asked.task == RETRIEVAL:
        _refuse(asked, "head", "write")
    else:
        _refuse(asked, "shortlist", "split" if asked.task is None else "data")
    model = _opened(source, asked)
    if asked.task == RETRIEVAL:
        return _retrieval(model, source, asked, limit, seed, skip_bad_records, as_json)
    if isinstance(model, OldDecides):
        return _cases(model, source, asked, limit, seed, skip_bad_records, as_json)
    if not isinstance(model, Generates):
        raise UserError(f"{source}: is a {type(model).__name__}, which neither generates text nor decides.")
    return _answering(model, source, asked, limit, seed, skip_bad_records, as_json)


def _opened(source: str, asked: Asked) -> Any:
    """The model, with the regions that were named."""
    if asked.regions is None:
        return load(source)
    return load(source, regions=RegionsConfig(tower=None, files=asked.regions))


def _refuse(asked: Asked, *options: str) -> None:
    """Refuse what would be ignored.

    Raises:
        UserError: one of these options was given.
    """
    for option in options:
        if getattr(asked, option) is not None:
            raise UserError(f"--{option}: {asked.title} does not go by it; leave it out.")


def _benchmark(source: str, asked: Asked, limit: int, seed: int, as_json: bool) -> int:
    assert asked.task is not None
    kind = BENCHMARKS[asked.task]
    if asked.data is None:
        raise UserError(f"--task {asked.task}: name the folder with its files as --data. Wanted: {kind.files}.")
    benchmark = kind(Path(asked.data), asked.split or "val")
    if Path(source).is_file():
        _refuse(asked, "head", "write", "regions")
        scores = benchmark.score(benchmark.read_predictions(Path(source)))
        return _show(source, asked, {"n": len(benchmark.cases), **figures(scores)}, as_json)
    model = _opened(source, asked)
    if not isinstance(model, OldDecides):
        raise UserError(f"{source}: is a {type(model).__name__}, which decides nothing; give a ViLBERT with a task.")
    benchmark.cases = drawn(benchmark.cases, limit, seed, benchmark.together)
    decisions = _decided(model, benchmark.cases, asked)
    scores = benchmark.score({case.id: decision for case, decision in zip(benchmark.cases, decisions, strict=True)})
    return _show(source, asked, {"n": len(benchmark.cases), **figures(scores)}, as_json)


def drawn(cases: list[Case], limit: int, seed: int, together: Callable[[Case], str]) -> list[Case]:
    """At most so many of the cases (0: all), drawn by seed; those that are scored together come together."""
    if not limit or limit >= len(cases):
        return cases
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(together(case), []).append(case)
    kept: list[Case] = []
    for group in random.Random(seed).sample(list(groups.values()), len(groups)):
        if not kept or len(kept) + len(group) <= limit:
            kept += group
    return kept


def _cases(
    model: OldDecides, source: str, asked: Asked, limit: int, seed: int, skip_bad_records: bool, as_json: bool
) -> int:
    problems: list[Problem] = []
    name = asked.task or asked.data
    assert name is not None
    with reporting("checking records") as report:
        cases = four_way(read_source(name, task_name(name), asked.split or "test", problems, report))
    must_be_good(problems, skip_bad_records, name)
    if not cases:
        raise DataError(f"{name}: no good record in it.")
    cases = draw(cases, limit, seed)
    scores = score_decisions(cases, _decided(model, cases, asked))
    return _show(source, asked, {"n": len(cases), "bad_records": len(problems), **figures(scores)}, as_json)


def _decided(model: Any, cases: Sequence[Case], asked: Asked) -> list[Decision]:
    head = model.head_for(cases[0], asked.head)
    cases = [dataclasses.replace(case, task=head) for case in cases]
    with reporting("finding regions") as report:
        model.prepare(cases, report)
    with reporting("deciding") as report:
        decisions = model.decide(cases, progress=report)
    if asked.write is not None:
        lines = [json.dumps(_line(case, decision)) for case, decision in zip(cases, decisions, strict=True)]
        asked.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return decisions


def _line(case: Case, decision: Decision) -> dict[str, Any]:
    best = decision.best
    said: Any = dataclasses.astuple(best) if dataclasses.is_dataclass(best) and not isinstance(best, type) else best
    found = {"id": case.id, "name": case.name, "best": said}
    if decision.probabilities:
        found["probability"] = max(decision.probabilities)
    return found


def _retrieval(
    model: Any, source: str, asked: Asked, limit: int, seed: int, skip_bad_records: bool, as_json: bool
) -> int:
    if not isinstance(model, Matches):
        raise UserError(f"{source}: is a {type(model).__name__}, which matches nothing; give a ViLBERT.")
    if asked.data is None:
        raise UserError(
            f"--task retrieval: name a folder with Karpathy's JSON, a JSON Lines file or one of {', '.join(PAIRS)} "
            "as --data."
        )
    problems: list[Problem] = []
    if Path(asked.data).is_dir():
        collection = karpathy(Path(asked.data), asked.split or "test")
    else:
        _refuse(asked, "split")
        collection = of_documents(captioned(asked.data, problems))
        must_be_good(problems, skip_bad_records, asked.data)
    if not collection.images:
        raise DataError(f"{asked.data}: no good record in it.")
    if limit and limit < len(collection.images):
        collection = _some(collection, sorted(draw(range(len(collection.images)), limit, seed)))
    assert isinstance(model, Trainable)
    with reporting("finding regions") as report:
        _prepare_images(model, collection, report)
    candidates = None
    if asked.shortlist is not None:
        faster = load(asked.shortlist)
        if not isinstance(faster, Matches):
            raise UserError(f"--shortlist {asked.shortlist}: is a {type(faster).__name__}, which matches nothing.")
        with reporting("finding regions") as report:
            _prepare_images(faster, collection, report)
        rough = faster.match_all(collection.images, collection.texts)
        candidates = torch.from_numpy(shortlist(rough.numpy(), asked.shortlist_size))
    with reporting("matching") as report:
        scores = model.match_all(collection.images, collection.texts, candidates, progress=report)
    found = figures(recalls(scores.numpy(), collection))
    counts = {"n": len(collection.images), "texts": len(collection.texts), "bad_records": len(problems)}
    return _show(source, asked, {**counts, **found}, as_json)


def _prepare_images(model: Any, collection: Collection, report: Any) -> None:
    model.inputs.prepare([Document([image], name=image.name) for image in collection.images], report)


def _some(collection: Collection, images: list[int]) -> Collection:
    """Some of the images, with their texts."""
    place = {image: number for number, image in enumerate(images)}
    kept = [number for number, image in enumerate(collection.image_of) if image in place]
    return Collection(
        [collection.images[image] for image in images],
        [collection.texts[number] for number in kept],
        [place[collection.image_of[number]] for number in kept],
    )


def _show(source: str, asked: Asked, found: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps({"model": source, "task": asked.title, **found}))
        return 0
    if found.get("bad_records"):
        console.print(f"left out {found['bad_records']} bad records")
    kept = {name: value for name, value in found.items() if name not in ("bad_records", "texts")}
    console.print(decision_table({asked.title: kept}))
    return 0


def _answering(
    model: Any, source: str, asked: Asked, limit: int, seed: int, skip_bad_records: bool, as_json: bool
) -> int:
    _refuse(asked, "split", "head", "write", "regions")
    data = asked.task or asked.data
    assert data is not None
    problems: list[Problem] = []
    with reporting("checking records") as report:
        examples = evaluation_examples(data, skip_bad_records, problems, report)
    examples = draw(examples, limit, seed)
    with reporting("encoding images") as report:
        model.prepare([example.prompt(model.prompts) for example in examples], report)
    with reporting("answering") as report:
        answered = answer(model, examples, progress=report)
    with reporting("answering blind") as report:
        blind = answer(model, examples, blind=True, progress=report)
    score = {
        "model": source,
        "task": data,
        "n": len(examples),
        "bad_records": len(problems),
        "accuracy": answered.accuracy.value,
        "accuracy_low": answered.accuracy.low,
        "accuracy_high": answered.accuracy.high,
        "blind_accuracy": blind.accuracy.value,
        "reference_perplexity": perplexity(model, examples, model.prompts),
    }
    if as_json:
        print(json.dumps(score))
        return 0
    if problems:
        console.print(f"left out {len(problems)} bad records")
    console.print(f"{data}: [bold]{answered.accuracy}[/bold] of {len(examples):,} answers equal a reference")
    console.print(f"images taken away: {blind.accuracy}")
    console.print(f"perplexity of the references: {score['reference_perplexity']:.3f} a token")
    return 0
