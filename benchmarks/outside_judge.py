"""The same questions, after the same shots, scored by vislang and by lmms-eval: equal answers and equal scores?

lmms-eval (0.7) has an environment of its own, in which vislang is installed too (docs/evaluation.md); give its Python
with --judge. Prints a table, and writes it as Markdown with --out.

    python benchmarks/outside_judge.py MODEL --judge PYTHON --tasks easy-vqa --shots 0 4 --limit 100 [--served]

With --served, lmms-eval asks ``vislang serve`` with its own OpenAI client instead of opening the model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serve import server

from vislang.commands.few_shot import sides
from vislang.evaluate.few_shot import evaluate_point, way_of
from vislang.evaluate.generate import generate
from vislang.evaluate.rank import rank
from vislang.evaluate.shots import Setting
from vislang.integrations.lmms_eval_task import write_task
from vislang.models.loading import load
from vislang.tasks.catalogue import open_task

HEADINGS = ("task", "shots", "questions", "answered by", "vislang", "lmms-eval", "equal answers", "seconds, both")


@contextmanager
def asked(model: str, options: str, served: bool) -> Iterator[tuple[str, str]]:
    """The name and the arguments of the model for lmms-eval."""
    if not served:
        yield "vislang", f"pretrained={model},device=cpu{options}"
        return
    with server(f"judged={model}") as (port, _):
        yield "openai", f"model=judged,base_url=http://127.0.0.1:{port}/v1,api_key=none,num_concurrent=4"


def judge(python: Path, asked: tuple[str, str], folder: Path, name: str) -> tuple[float, list[str]]:
    """lmms-eval's score of a local task, and the model's answers in its files."""
    model, arguments = asked
    words = [str(python), "-m", "lmms_eval", "--model", model, "--model_args", arguments, "--tasks", name]
    words += ["--include_path", str(folder), "--batch_size", "8", "--output_path", str(folder / "out"), "--log_samples"]
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **offline})
    if done.returncode:
        raise SystemExit(f"lmms-eval failed:\n{done.stderr[-4000:]}")
    (samples,) = (folder / "out").rglob(f"*samples_{name}.jsonl")
    records = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda record: record["doc_id"])
    (results,) = (folder / "out").rglob("*results.json")
    score = json.loads(results.read_text())["results"][name]["exact_match,none"]
    return score, [record["filtered_resps"] for record in records]


def compared(model_name: str, spec: str, shots: int, limit: int, python: Path, served: bool) -> tuple[str, ...]:
    """A row of the table."""
    task = open_task(spec)
    support, queries = sides(task, task.examples(task.default_split), limit, 0)
    model = load(model_name)
    way = way_of(model, task)
    labels = list(task.labels)
    if served and way != "generate":
        raise SystemExit(f"--served: {spec} is answered by ranking, and this client sends no answers to choose from.")
    started = time.perf_counter()
    given = []
    if shots:
        point = evaluate_point(model, task, support, queries, Setting(shots), range(1))
        ((_, predictions),) = point.predictions.items()
        ((_, ids),) = point.shots.items()
        by_id = {example.id: example for example in support}
        given = [by_id[name] for name in ids]
    else:
        predictions = generate(model, queries) if way == "generate" else rank(model, queries, labels)
    ours = time.perf_counter() - started
    own = task.score(queries, predictions)["accuracy"].value
    options = f",options={'|'.join(labels)}" if way == "rank" else ""
    with tempfile.TemporaryDirectory() as folder:
        write_task(Path(folder), "judged", queries, given)
        started = time.perf_counter()
        with asked(model_name, options, served) as reached:
            theirs, answers = judge(python, reached, Path(folder), "judged")
        whole = time.perf_counter() - started
    equal = sum(a == str(p.answer).strip() for a, p in zip(answers, predictions, strict=True))
    return (
        spec,
        str(shots),
        str(len(queries)),
        ("ranking" if way == "rank" else "generation") + (", served" if served else ""),
        f"{100 * own:.2f} %",
        f"{100 * theirs:.2f} %",
        f"{equal} of {len(queries)}",
        f"{ours:.0f}, {whole:.0f}",
    )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--judge", type=Path, required=True, help="Python of the environment with lmms-eval")
    parser.add_argument("--tasks", nargs="+", default=["easy-vqa", "emoji-groups-coded"])
    parser.add_argument("--shots", nargs="+", type=int, default=[0, 4])
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--served", action="store_true", help="lmms-eval asks a server")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    print(*lines, sep="\n")
    for spec in given.tasks:
        for shots in given.shots:
            lines.append(
                "| " + " | ".join(compared(given.model, spec, shots, given.limit, given.judge, given.served)) + " |"
            )
            print(lines[-1], flush=True)
    if given.out is not None:
        given.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
