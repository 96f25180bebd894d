"""lmms-eval as an outside judge: the same questions after the same shots have the same answers and the same score.

It has an environment of its own, with this package installed, so that its entry point is there (docs/evaluation.md).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from tests import tiny
from vislang.evaluate.few_shot import evaluate_point
from vislang.evaluate.shots import Setting
from vislang.integrations.lmms_eval_task import write_task
from vislang.models.loading import load
from vislang.tasks.catalogue import open_task
from vislang.tasks.few_shot import split_own_file

HERE = importlib.util.find_spec("lmms_eval") is not None
REGISTERED = any(entry.name == "vislang" for entry in entry_points(group="lmms_eval.models"))

needs_lmms_eval = pytest.mark.skipif(
    not (HERE and REGISTERED),
    reason="lmms-eval is not installed here"
    if not HERE
    else "this package was installed before it had its entry point; install it again",
)


@pytest.fixture
def judged(pictures, tmp_path):
    """A model, and a task with 12 queries after 4 shots, for both programs."""
    tiny.flamingo(tiny.save_towers(tmp_path / "towers", positions=1024)).save(tmp_path / "model")
    model = load(str(tmp_path / "model"))
    task = split_own_file(open_task(str(pictures / "my.jsonl")), 12)
    queries, support = task.examples("test"), task.support()
    point = evaluate_point(model, task, support, queries, Setting(4), range(1))
    ((_, ids),) = point.shots.items()
    by_id = {example.id: example for example in support}
    write_task(tmp_path / "local", "colours", queries, [by_id[name] for name in ids])
    return tmp_path, task, queries, point


def test_a_task_has_the_examples_of_the_prompt_as_turns(judged):
    folder, _, queries, _ = judged
    spec = importlib.util.spec_from_file_location("messages", folder / "local" / "colours_messages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(folder / "local" / "colours.parquet").to_pylist()
    assert [row["id"] for row in rows] == [query.id for query in queries]
    messages = module.doc_to_messages(rows[0])
    assert [message["role"] for message in messages] == ["user", "assistant"] * 4 + ["user"]
    kinds = [[content["type"] for content in message["content"]] for message in messages]
    assert kinds == [["image", "text"], ["text"]] * 4 + [["image", "text"]]
    assert messages[-1]["content"][0]["url"].tobytes() == queries[0].media[0].decode().tobytes()


@needs_lmms_eval
def test_both_programs_give_the_same_answers_and_the_same_score(judged):
    folder, task, queries, point = judged
    ((_, own),) = point.predictions.items()
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    words = ["--model", "vislang", "--model_args", f"pretrained={folder / 'model'},device=cpu"]
    words += ["--tasks", "colours", "--include_path", str(folder / "local"), "--batch_size", "5"]
    words += ["--output_path", str(folder / "out"), "--log_samples"]
    done = subprocess.run(
        [sys.executable, "-m", "lmms_eval", *words], capture_output=True, text=True, env={**os.environ, **offline}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = (folder / "out").rglob("*samples_colours.jsonl")
    found = {record["doc_id"]: record for record in map(json.loads, samples.read_text().splitlines())}
    answers = [found[number]["filtered_resps"] for number in range(len(queries))]
    assert answers == [str(prediction.answer).strip() for prediction in own]
    (results,) = (folder / "out").rglob("*results.json")
    score = json.loads(results.read_text())["results"]["colours"]["exact_match,none"]
    assert score == pytest.approx(task.score(queries, own)["accuracy"].value)
