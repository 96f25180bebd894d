"""ViLBERT and the systems that it was compared with (Lu et al. 2019, table 1), on sets that run on a small machine.

    python -m vislang.studies.earlier --seeds 0 1 2 --minutes 5 --out docs/results/earlier

Every model of a set trains on the same examples for the same time, or with ``--steps`` for the same number of steps:
where other programs use the machine, equal times are not equal work. Its learning rate is the one of ``--rates`` with
which the first seed scores best on held-out training examples; with it, the other seeds are trained. The test examples
are read once, for the final models. ViLBERT has two streams or one, all of one width, and starts from random weights or
from pretraining on captioned pictures, which took the same time; with two streams and random weights it also has 4, 6
and 8 co-attention layers in place of 2. Finished measurements are not repeated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from io import BytesIO
from math import comb
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from vislang.console import console
from vislang.data.sets import reasons
from vislang.data.sources import load_source
from vislang.data.split import hold_out
from vislang.document import Document, Image
from vislang.evaluate.evaluation import evaluate
from vislang.example import Example
from vislang.metrics.figure import Figures, figures_as_json, metric, plain, show
from vislang.metrics.retrieval import METRICS, belonging
from vislang.models.loading import load
from vislang.program import run_program
from vislang.runs.folder import read_json
from vislang.studies.arms import Arm, add_options, trained, use_threads
from vislang.studies.depth import at_depth
from vislang.studies.grounding import without_text
from vislang.studies.line import mean_line
from vislang.studies.results import Results
from vislang.studies.retrieval import opened
from vislang.tasks.benchmarks.vcr import VCR
from vislang.tasks.catalogue import open_task
from vislang.tasks.retrieval import Retrieval, sides
from vislang.tasks.task import Task

HELD_OUT = 0.02
"""The share of the training images that is held out for choices; it is that of the recipes."""

WARMUP = 50
"""Steps of warm-up of every model; the recipes are made for longer training."""

PAIRS = ("emoji-google-names", "clip-art-titles")
STREAMS = (
    "--model.streams.text.vocabulary_size=4000",
    "--model.streams.text.max_length=24",
    "--model.streams.text.width=128",
    "--model.streams.text.heads=4",
    "--model.streams.text.mlp_width=512",
    "--model.streams.vision.width=128",
    "--model.streams.vision.heads=4",
    "--model.streams.vision.mlp_width=512",
    "--model.streams.width=128",
    "--model.streams.heads=4",
)
"""The shape of every ViLBERT, which is that of recipes/vilbert-easyvqa.yaml with more words."""

ONE_STREAM = ("--model.streams.single_stream=true", "--model.streams.text.depth=6")
"""Six layers of one stream have fewer parameters than four, two and two co-attention layers, and take more time."""

DEPTHS = (4, 6, 8)
"""Numbers of co-attention layers beside the recipe's two (table 2)."""

PRETRAINED = {"two streams": "pretraining of two streams", "one stream": "pretraining of one stream"}
PRETRAINING = tuple(
    Arm(PRETRAINED[streams], Path("recipes/vilbert-pretrain.yaml"), (*STREAMS, *changes))
    for streams, changes in (("two streams", ()), ("one stream", ONE_STREAM))
)

Examples = tuple[Task, list[Example]]


@dataclass(frozen=True)
class Compared:
    """A set on which systems are compared.

    Attributes:
        name: name in the table.
        system: the earlier system.
        metrics: the metrics in the table; choices are made by the first.
        arms: the models; they differ in their recipe only.
        validation: the task, and held-out training examples.
        tests: the same for each test.
        support: training examples for the baselines.
        unseen: an example with what it asks about removed, for the model that answers without it; None if a model
            cannot answer without.
        without: what was removed.
    """

    name: str
    system: str
    metrics: tuple[str, ...]
    arms: tuple[Arm, ...]
    validation: Callable[[], Examples]
    tests: dict[str, Callable[[], Examples]]
    support: Callable[[], list[Example]]
    unseen: Callable[[Example], Example] | None = None
    without: str = ""


def vilberts(set_name: str, recipe: str, *changes: str) -> tuple[Arm, ...]:
    """ViLBERT's arms on a set: two streams or one, pretrained or not, and two streams with more co-attention layers."""
    path, shapes = Path(f"recipes/{recipe}.yaml"), {"two streams": (), "one stream": ONE_STREAM}
    names = {streams: f"{set_name}, ViLBERT, {streams}" for streams in shapes}
    deeper = {f"{names['two streams']}, {layers} co-attention layers": at_depth(layers) for layers in DEPTHS}
    return (
        *(Arm(names[streams], path, (*STREAMS, *changes, *more)) for streams, more in shapes.items()),
        *(Arm(name, path, (*STREAMS, *changes, *more)) for name, more in deeper.items()),
        # A pretrained model brings its shape.
        *(Arm(f"{name}, pretrained", path, changes, PRETRAINED[streams]) for streams, name in names.items()),
    )


@cache
def held_out(*sources: str) -> tuple[list[Example], list[Example]]:
    """The training examples of sources, and those that are held out, as a run divides them."""
    return hold_out([example for source in sources for example in load_source(source, "train")], HELD_OUT)


def of_set(name: str) -> Callable[[], Examples]:
    """The task of a packaged set, with held-out training examples."""
    return lambda: (open_task(name), held_out(name)[1])


def of_split(name: str, split: str) -> Callable[[], Examples]:
    """The same with a split of it."""

    def read() -> Examples:
        task = open_task(name)
        return task, task.examples(split)

    return read


def of_pairs() -> Examples:
    """Retrieval among the pairs that are held out."""
    return open_task(f"retrieval:{PAIRS[0]}"), held_out(*PAIRS)[1]


def unseen(example: Example) -> Example:
    """The example with its image replaced by a grey one."""
    parts = [part if isinstance(part, str) else grey() for part in example.prompt.parts]
    return replace(example, prompt=Document(parts, name=example.prompt.name))


@cache
def grey() -> Image:
    """A grey image."""
    content = BytesIO()
    Pillow.new("RGB", (64, 64), (128, 128, 128)).save(content, "PNG")
    return Image(content.getvalue())


def _system(set_name: str, system: str, recipe: str, *changes: str) -> Arm:
    return Arm(f"{set_name}, {system}", Path(f"recipes/{recipe}.yaml"), changes)


MATCHING, REASONS = "retrieval", reasons.NAME
OF_FOUR = (
    f"--data=[{{sources: [{', '.join(f'pairs:{source}' for source in PAIRS)}], name: choices}}]",
    f"--hold_out={HELD_OUT}",
)
OF_REASONS = (
    f"--data={REASONS}",
    f"--hold_out={HELD_OUT}",
    # Their own size; at half of it, things have a few pixels.
    "--model.regions.image_size=256",
    "--train.batch_size=16",
)
R2C_SHAPE = (
    "--model.network.text.vocabulary_size=4000",
    "--model.network.text.max_length=24",
    "--model.network.text.width=192",
    "--model.network.object_width=192",
    "--model.network.width=192",
    "--model.network.mlp_width=384",
)

SETS = (
    Compared(
        MATCHING,
        "SCAN",
        METRICS,
        (_system(MATCHING, "SCAN", "scan"), *vilberts(MATCHING, "vilbert-retrieval", *OF_FOUR)),
        of_pairs,
        {name: partial(opened, name) for name in ("emoji-twitter-names", "stamp-pictures-test")},
        list,
    ),
    Compared(
        "easy-vqa",
        "DFAF",
        ("accuracy",),
        (_system("easy-vqa", "DFAF", "dfaf"), *vilberts("easy-vqa", "vilbert-easyvqa")),
        of_set("easy-vqa"),
        {"test": of_split("easy-vqa", "test")},
        lambda: held_out("easy-vqa")[0],
        unseen,
        "the image",
    ),
    Compared(
        "scenes",
        "MAttNet",
        ("accuracy",),
        (_system("scenes", "MAttNet", "mattnet"), *vilberts("scenes", "vilbert-scenes")),
        of_set("scenes"),
        {name: of_split("scenes", name) for name in ("test", "test-twitter")},
        lambda: held_out("scenes")[0],
        without_text,
        "the text",
    ),
    Compared(
        REASONS,
        "R2C",
        VCR.metrics,
        (
            _system(REASONS, "R2C", "r2c", *OF_REASONS, *R2C_SHAPE),
            *vilberts(REASONS, "vilbert-retrieval", *OF_REASONS),
        ),
        # Its pictures are in no other split.
        of_split(REASONS, "val"),
        {"test": of_split(REASONS, "test")},
        lambda: held_out(REASONS)[0],
        unseen,
        "the image",
    ),
)


@dataclass(frozen=True)
class Budget:
    """What every model gets.

    Attributes:
        minutes: time of training.
        rates: learning rates to choose from.
        runs: folder of the runs.
        steps: number of steps instead of a time; 0 for none.
        limit: greatest number of examples of a test, the same for all; 0 for all.
    """

    minutes: float
    rates: tuple[float, ...]
    runs: Path
    steps: int = 0
    limit: int = 0

    def arm(self, arm: Arm, rate: float) -> Arm:
        """An arm with a learning rate, trained within the time; nothing of the test data is read."""
        changes = (f"--train.lr={rate:g}", *self._time())
        return replace(arm, name=f"{arm.name}, rate {rate:g}", changes=(*arm.changes, *changes))

    def pretraining(self) -> list[Arm]:
        """The arms of pretraining, within the same time."""
        return [replace(arm, changes=(*arm.changes, *self._time())) for arm in PRETRAINING]

    def _time(self) -> tuple[str, ...]:
        length: tuple[str, ...] = (f"--train.minutes={self.minutes:g}", "--train.steps=null")
        if self.steps:
            length = (f"--train.steps={self.steps}",)
        return (*length, f"--train.warmup_steps={WARMUP}", "--evaluate=[]", "--eval_data=null")


def run(seeds: Sequence[int], budget: Budget, out: Path, sets: Sequence[Compared] = SETS) -> None:
    """Train and score what is missing; write ``results.json`` after each measurement, and ``table.md``."""
    length = {"steps": budget.steps} if budget.steps else {"minutes": budget.minutes}
    results = Results(out, **length, rates=list(budget.rates), limit=budget.limit)
    for compared in sets:
        for test in compared.tests:
            if not any(
                row["set"] == compared.name and row["test"] == test and "seed" not in row for row in results.rows
            ):
                results.add(*_guesses(compared, test, budget.limit))
    for seed in seeds:
        for compared in sets:
            for arm in compared.arms:
                chosen = choose(compared, arm, seeds[0], budget, results)
                _score(compared, arm, chosen, seed, budget, results)
                (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def choose(compared: Compared, arm: Arm, seed: int, budget: Budget, results: Results) -> float:
    """The learning rate of an arm: the one with the best score on held-out examples."""
    if len(budget.rates) == 1:
        return budget.rates[0]
    name = compared.metrics[0]
    scores: dict[float, float] = {}
    for rate in budget.rates:
        keys = {"set": compared.name, "test": "validation", "arm": shown(arm), "seed": seed, "rate": rate}
        if not results.known(**keys):
            folder = trained(budget.arm(arm, rate), budget.pretraining(), seed, budget.runs)
            task, examples = compared.validation()
            figures = evaluate(load(folder / "model"), task, examples, with_blind=False).figures
            results.add({**keys, "figures": figures_as_json(figures)})
        (row,) = (row for row in results.rows if keys.items() <= row.items())
        scores[rate] = row["figures"][name]["value"]
    return max(scores, key=lambda rate: scores[rate])


def _score(compared: Compared, arm: Arm, rate: float, seed: int, budget: Budget, results: Results) -> None:
    for test, read in compared.tests.items():
        keys = {"set": compared.name, "test": test, "arm": shown(arm), "seed": seed}
        if results.known(**keys):
            continue
        folder = trained(budget.arm(arm, rate), budget.pretraining(), seed, budget.runs)
        model, (task, examples) = load(folder / "model"), limited(read(), budget.limit)
        metrics = read_json(folder / "metrics.json")
        about = {
            "rate": rate,
            "steps": metrics["steps"],
            "seconds": metrics["train_seconds"],
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        figures = evaluate(model, task, examples, with_blind=False).figures
        rows = [{**keys, **about, "figures": figures_as_json(figures)}]
        if compared.unseen is not None:
            asked = [compared.unseen(example) for example in examples]
            blind = task.score(examples, evaluate(model, task, asked, with_blind=False).predictions)
            arm_without = f"{keys['arm']}, without {compared.without}"
            rows.append({**keys, **about, "arm": arm_without, "figures": figures_as_json(blind)})
        results.add(*rows)
        name = compared.metrics[0]
        console.print(f"{test}: {keys['arm']}, seed {seed}: {metric(name).title} {show(name, figures[name])}")


def shown(arm: Arm) -> str:
    """The name of an arm in the table of its set."""
    return arm.name.partition(", ")[2]


def limited(read: Examples, limit: int) -> Examples:
    """The task with at most this many of its examples, drawn at random; 0 for all."""
    task, examples = read
    return task, task.subset(examples, limit, seed=0)


def _guesses(compared: Compared, test: str, limit: int) -> list[dict[str, Any]]:
    """The rows of baselines that do not look at the image."""
    task, examples = limited(compared.tests[test](), limit)
    found = chance(examples) if isinstance(task, Retrieval) else task.guesses(compared.support(), examples)
    return [
        {"set": compared.name, "test": test, "arm": name.replace("_", " "), "figures": figures_as_json(figures)}
        for name, figures in found.items()
    ]


def chance(examples: Sequence[Example]) -> dict[str, Figures]:
    """The recalls of a random order: whether one of the right candidates is among the first."""
    images, texts, image_of = sides(examples)
    right = belonging(texts, image_of, len(images))
    candidates = {"text_to_image": (len(images), right.sum(axis=0)), "image_to_text": (len(texts), right.sum(axis=1))}
    figures = {}
    for name in METRICS:
        _, _, first, way = name.split("_", 3)
        count, correct = candidates[way]
        drawn = min(int(first), count)
        missed = [comb(count - int(each), drawn) / comb(count, drawn) for each in correct]
        figures[name] = plain(1 - sum(missed) / len(missed), len(missed))
    return {"chance": figures}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each test of each set, in the order of the arms."""
    parts = []
    for compared in SETS:
        for test in compared.tests:
            here = [row for row in rows if (row["set"], row["test"]) == (compared.name, test)]
            names = list(dict.fromkeys(row["arm"] for row in sorted(here, key=lambda row: "seed" not in row)))
            if not any("seed" in row for row in here):
                continue
            heads = " | ".join(metric(name).title for name in compared.metrics)
            lines = [f"| {compared.name}, {test} | {heads} |", f"|{'---|' * (len(compared.metrics) + 1)}"]
            for arm in names:
                own = [row for row in here if row["arm"] == arm]
                if set(compared.metrics) <= own[0]["figures"].keys():
                    cells = " | ".join(str(mean_line(own, name)) for name in compared.metrics)
                    lines.append(f"| {arm} | {cells} |")
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run the study with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, Path("runs/studies/earlier"))
    parser.add_argument("--minutes", type=float, default=5.0, help="training time of each model")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3], help="learning rates to choose from")
    parser.add_argument("--steps", type=int, default=0, help="steps of training instead of a time")
    parser.add_argument("--limit", type=int, default=0, help="greatest number of examples of a test; 0: all")
    known = [compared.name for compared in SETS]
    parser.add_argument("--sets", nargs="+", choices=known, default=known, help="the sets to compare on")
    names = list(dict.fromkeys(shown(arm) for compared in SETS for arm in compared.arms))
    parser.add_argument(
        "--arms", nargs="+", choices=names, default=names, metavar="MODEL", help="the models to compare"
    )
    options = parser.parse_args()
    use_threads(options.threads)
    chosen = [
        replace(compared, arms=tuple(arm for arm in compared.arms if shown(arm) in options.arms))
        for compared in SETS
        if compared.name in options.sets
    ]
    budget = Budget(options.minutes, tuple(options.rates), options.runs, options.steps, options.limit)
    run(options.seeds, budget, options.out, chosen)


if __name__ == "__main__":
    sys.exit(run_program(main))
