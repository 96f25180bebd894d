"""Pictures and their words: two streams, one stream or two encoders; with pretraining and without.

    python -m vislang.studies.retrieval --seeds 0 1 2 --out docs/runs/vilbert-retrieval

Each arm learns from the same pictures and captions (emoji by Google's hand, clip art), and ranks what it has not seen:
half of the stamps, and emoji by Twitter's hand. "Zero-shot" is straight from pretraining; "fine-tuned" has seen the
other half of the stamps, and chosen one caption of four. The rows with and without pretraining are those that Lu et al.
2019 mark with a dagger (table 1). Whatever was done already is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vislang.capabilities import Matches
from vislang.commands.deciding import figures
from vislang.commands.run_folder import circumstances, write_json
from vislang.console import console
from vislang.document import Document
from vislang.models.loading import load
from vislang.studies.arms import Arm, trained
from vislang.studies.line import Line
from vislang.tasks.answers import proportion
from vislang.tasks.captioned import captioned
from vislang.tasks.retrieval import RANKS, of_documents, recalls

# Over a picture and a text, six layers of one stream take about the time of four, two, and two meetings of both.
ONE_STREAM = ("--model.streams.single_stream=true", "--model.streams.text.depth=6")
PRETRAIN, CHOOSE = Path("recipes/vilbert-pretrain.yaml"), Path("recipes/vilbert-retrieval.yaml")
SHORT = ("--train.steps=1500", "--train.warmup_steps=150", "--eval_limit=64")
SHORTER = ("--train.steps=400", "--train.warmup_steps=50", "--eval_limit=64")

ARMS = (
    Arm("dual encoder", Path("recipes/dual-encoder.yaml"), ("--eval_limit=64",)),
    Arm("two streams, zero-shot", PRETRAIN, SHORT),
    Arm("one stream, zero-shot", PRETRAIN, (*SHORT, *ONE_STREAM)),
    Arm("two streams, fine-tuned", CHOOSE, SHORTER, start="two streams, zero-shot"),
    Arm("one stream, fine-tuned", CHOOSE, SHORTER, start="one stream, zero-shot"),
    Arm("two streams, fine-tuned, not pretrained", CHOOSE, SHORTER),
    Arm("one stream, fine-tuned, not pretrained", CHOOSE, (*SHORTER, *ONE_STREAM)),
)

TESTS = ("stamp-pictures-test", "emoji-twitter-names")
MOST = 300
"""Pairs of a test, chosen by hash."""


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and rank what is missing; write ``results.json`` after each step of that, and ``table.md``."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "results.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []
    for seed in seeds:
        for arm in ARMS:
            folder = trained(arm, ARMS, seed, runs)
            for test in TESTS:
                if any(row["test"] == test and row["who"] == arm.name and row["seed"] == seed for row in rows):
                    continue
                model = load(folder / "model")
                assert isinstance(model, Matches)
                collection = of_documents(chosen(test))
                scores = model.match_all(collection.images, collection.texts)
                found = figures(recalls(scores.numpy(), collection))
                seconds = json.loads((folder / "metrics.json").read_text("utf-8"))["train_seconds"]
                items = {"images": len(collection.images), "texts": len(collection.texts)}
                rows.append({"test": test, "who": arm.name, "seed": seed, "seconds": seconds, **items, **found})
                write_json(path, {**circumstances(), "rows": rows})
                console.print(f"{test}: {arm.name}, seed {seed}: R@1 {100 * found['R@1, text to image']:.1f} %")
    (out / "table.md").write_text(markdown(rows), encoding="utf-8")


def chosen(test: str) -> list[Document]:
    """At most so many pairs of a test."""
    documents = captioned(test, [])
    return sorted(documents, key=lambda d: hashlib.sha256(str(d.parts[1]).encode()).digest())[:MOST]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One table a test, in the order of the arms."""
    parts = []
    names = [f"R@{rank}, {way}" for way in ("text to image", "image to text") for rank in RANKS]
    for test in dict.fromkeys(row["test"] for row in rows):
        here = [row for row in rows if row["test"] == test]
        size = f"{here[0]['images']} pictures, {here[0]['texts']} captions"
        lines = [f"| {test}, {size} | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
        for who in dict.fromkeys(row["who"] for row in here):
            of = [row for row in here if row["who"] == who]
            cells = [str(line_of(of, name)) for name in names]
            lines.append(f"| {who} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def line_of(rows: Sequence[dict[str, Any]], name: str) -> Line:
    """The mean over seeds, with the interval that so many items allow."""
    items = rows[0]["texts" if name.endswith("text to image") else "images"]
    values = tuple(row[name] for row in rows)
    return Line(proportion(sum(values) / len(values) * items, items), values)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/studies/retrieval"))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    run(options.seeds, options.out, options.runs)


if __name__ == "__main__":
    main()
