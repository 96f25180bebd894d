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
from types import SimpleNamespace

import pytest
from PIL import Image as Pillow

from tests import tiny
from tests.evaluate import cells
from tests.serve.running import running
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.evaluate.few_shot import evaluate_point
from vislang.evaluate.shots import Setting
from vislang.example import Answers, Example, Text
from vislang.integrations.lmms_eval_task import write_task
from vislang.models.loading import load
from vislang.serve.served import Served
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


@pytest.fixture(params=["opened", "served"])
def asked_by(request, judged):
    """How lmms-eval reaches the model: through this package's entry point, or by its own OpenAI client over HTTP."""
    folder, *_ = judged
    if request.param == "opened":
        yield ["--model", "vislang", "--model_args", f"pretrained={folder / 'model'},device=cpu"]
        return
    with running({"flamingo": Served("flamingo", load(str(folder / "model")))}, token="s3cret") as address:
        # It sends several requests at once.
        settings = f"model=flamingo,base_url={address}/v1,api_key=s3cret,num_concurrent=4,max_retries=1"
        yield ["--model", "openai", "--model_args", settings]


@needs_lmms_eval
def test_both_programs_give_the_same_answers_and_the_same_score(judged, asked_by):
    folder, task, queries, point = judged
    ((_, own),) = point.predictions.items()
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    words = [*asked_by, "--tasks", "colours", "--include_path", str(folder / "local"), "--batch_size", "5"]
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


def asked(model, *turns, **settings):
    """The model's answer to one request of lmms-eval, whose document has the messages."""
    messages = [
        {"role": role, "content": [{"type": kind, "text" if kind == "text" else "url": value} for kind, value in parts]}
        for role, parts in turns
    ]
    model.task_dict = {"colours": {"test": [messages]}}
    request = SimpleNamespace(args=("", lambda doc: doc, settings, 0, "colours", "test"))
    (answer,) = model.generate_until([request])
    return answer


@needs_lmms_eval
def test_models_that_generate_nothing_answer_as_well(towers, pictures, tmp_path):
    """A dual encoder chooses among options, a ViLBERT answers with its head; neither reads examples."""
    from vislang.integrations.lmms_eval import VislangModel

    pictures_of = {name: Image(pictures / f"{n}.png") for n, name in enumerate(("red", "blue"))}
    captions = [Example(name, Document([image]), Text((name,))) for name, image in pictures_of.items()]
    answers = [Example(name, Document([image, "what?"]), Answers({name: 1.0})) for name, image in pictures_of.items()]
    dual, vilbert = cells.dual_encoder(towers, captions), cells.vilbert(towers, answers)
    for name, model in (("dual", dual), ("vilbert", vilbert)):
        model.save(tmp_path / name)
    question = ("user", [("image", Pillow.open(pictures / "0.png")), ("text", "what?")])
    chosen = VislangModel(str(tmp_path / "dual"), device="cpu", options="red|blue")
    assert asked(chosen, question) in ("red", "blue")
    decided = VislangModel(str(tmp_path / "vilbert"), device="cpu")
    (expected,) = vilbert.decide([answers[0]])
    assert asked(decided, question) == expected.answer
    with pytest.raises(UserError, match="cannot be prompted with examples"):
        asked(decided, question, ("assistant", [("text", "red")]), question)
    with pytest.raises(UserError, match="cannot give an answer in words without options"):
        VislangModel(str(tmp_path / "dual"), device="cpu")


@needs_lmms_eval
def test_what_a_model_cannot_do_is_an_error(judged):
    from vislang.integrations.lmms_eval import VislangModel

    folder, *_ = judged
    model = VislangModel(str(folder / "model"), device="cpu")
    question = ("user", [("text", "what color?")])
    with pytest.raises(UserError, match=r"colours: temperature is 0\.7; vislang's models decode greedily"):
        asked(model, question, temperature=0.7)
    with pytest.raises(UserError, match="colours: num_beams is 3"):
        asked(model, question, num_beams=3)
    with pytest.raises(UserError, match="role system"):
        asked(model, ("system", [("text", "be brief")]), question)
    with pytest.raises(UserError, match="user and assistant must take turns"):
        asked(model, question, question)
    whole = asked(model, question, max_new_tokens=6)
    assert whole
    assert asked(model, question, max_new_tokens=6, until=[whole[1:]]) == whole[:1].strip()
