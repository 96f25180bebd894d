"""ViLBERT on the command line: several tasks at once, paused tasks, resuming, evaluation, mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models.test_vilbert_pretraining import COLOURS, picture
from vislang.cli import main
from vislang.models.regions.readers import RegionsConfig
from vislang.models.regions.sources import ClusteredRegions
from vislang.train.checkpoint import Checkpoints
from vislang.train.log import read_metrics, without_measurements
from vislang.train.schedule import StopAndGo

STREAMS = (
    "{text: {vocabulary_size: 80, max_length: 16, width: 32, depth: 2, heads: 2, mlp_width: 64}, "
    "vision: {width: 32, depth: 1, heads: 2, mlp_width: 64}, co_attention_layers: [[1, 0]], width: 32, heads: 2}"
)


@pytest.fixture
def folder(tmp_path):
    answers, boxes, captions = [], [], []
    for number in range(20):
        colour = COLOURS[number % 4]
        picture(tmp_path / f"{number}.png", colour, number)
        image = f"{number}.png"
        answers.append({"image": image, "question": "what colour?", "answer": colour})
        boxes.append({"image": image, "text": f"the {colour} shape", "box": [number, 8, min(number + 9, 32), 25]})
        captions.append({"image": image, "text": f"a {colour} shape"})
    for name, records in (("answers", answers), ("boxes", boxes), ("captions", captions)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    return tmp_path


def write_recipe(path: Path, kind: str, tower: str, data: str, more: str = "", **train) -> Path:
    settings = {"steps": 12, "batch_size": 4, "lr": 0.001, "eval_every": 2, "eval_examples": 4, "checkpoint_every": 4}
    lines = "\n".join(f"  {key}: {value}" for key, value in {**settings, **train}.items())
    path.write_text(
        f"""model:
  class_path: {kind}
  init_args:
    streams: {STREAMS}
    regions: {{tower: {tower}, image_size: 0{more}}}
data: {data}
hold_out: 0.2
train:
{lines}
""",
        encoding="utf-8",
    )
    return path


TASKS = "vislang.models.vilbert.tasks.ViLBERTRecipe"
PRETRAINING = "vislang.models.vilbert.pretraining.ViLBERTPretrainingRecipe"


@pytest.fixture
def recipe(folder, towers):
    data = (
        f"\n  - {{sources: [{folder / 'answers.jsonl'}], name: answers}}"
        f"\n  - {{sources: [{folder / 'boxes.jsonl'}], name: boxes, weight: 0.5}}"
    )
    return write_recipe(folder / "tasks.yaml", TASKS, towers[1], data, stop_and_go="true")


def losses(folder: Path) -> list[dict]:
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    return [without_measurements(row) for row in rows]


def whole_and_resumed(recipe: Path, folder: Path, monkeypatch) -> tuple[Path, Path]:
    """The folders of a run, and of one that is killed at its first checkpoint and then resumed."""
    whole, cut = folder / "whole", folder / "cut"
    assert main(["train", str(recipe), "--out", str(whole)]) == 0
    save = Checkpoints.save

    def save_and_die(checkpoints, *arguments):
        save(checkpoints, *arguments)
        checkpoints.wait()
        raise RuntimeError("killed")

    monkeypatch.setattr(Checkpoints, "save", save_and_die)
    with pytest.raises(RuntimeError, match="killed"):
        main(["train", str(recipe), "--out", str(cut)])
    monkeypatch.setattr(Checkpoints, "save", save)
    assert main(["train", str(recipe), "--resume", str(cut)]) == 0
    return whole, cut


def test_several_tasks_at_once_and_resting_ones(recipe, folder, capsys, monkeypatch):
    """Six evaluations with given scores: the first task does not improve and the second does, so the first is paused
    and trains in every fourth step."""
    update = StopAndGo.update
    monkeypatch.setattr(
        StopAndGo, "update", lambda self, scores: update(self, {**scores, "boxes": (self.best["boxes"] or 0) + 1})
    )
    run = folder / "run"
    assert main(["train", str(recipe), "--out", str(run), "--train.lr", "1e-9"]) == 0
    rows = losses(run)
    assert all("loss/answers/answers" in row for row in rows[:4])
    assert all("loss/boxes/boxes" in row for row in rows)
    resting = [row for row in rows if "loss/answers/answers" not in row]
    assert resting
    assert all((row["step"] - 1) % 4 for row in resting)
    for row in rows:
        parts = row.get("loss/answers/answers", 0) + 0.5 * row.get("loss/boxes/boxes", 0)
        assert row["loss"] == pytest.approx(parts, rel=1e-4)
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["tasks"]) == {"answers", "boxes"}
    assert "accuracy" in metrics["tasks"]["answers"]["guesses"]["most_frequent_answer"]
    assert "upper bound" in (run / "report.html").read_text()
    shown = capsys.readouterr().out
    assert "upper bound" in shown

    # Evaluation finds the head by the kind of target.
    for file, figure in (("answers", "accuracy"), ("boxes", "upper_bound")):
        arguments = ["eval", str(run / "model"), "--data", str(folder / f"{file}.jsonl"), "--json"]
        assert main([*arguments, "--out", str(folder / "out")]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["n"] == 20
        assert 0 <= found["figures"][figure]["value"] <= 1
        predictions = [json.loads(line) for line in (folder / "out" / "predictions.jsonl").read_text().splitlines()]
        assert [prediction["id"] for prediction in predictions] == [str(number) for number in range(1, 21)]
    assert main(["report", str(run)]) == 0


def test_a_run_with_paused_tasks_resumes_bit_for_bit(recipe, folder, monkeypatch):
    whole, cut = whole_and_resumed(recipe, folder, monkeypatch)
    assert losses(cut) == losses(whole)


def test_resumed_pretraining_meets_the_same_wrong_captions(folder, towers, tmp_path, monkeypatch):
    source = RegionsConfig(tower=towers[1], image_size=0).open().source
    images = [picture(tmp_path / f"{n}.png", COLOURS[n % 4], n).decode() for n in range(20)]
    ClusteredRegions.fit(source, images, clusters=4).save(folder / "clusters.safetensors")
    more = f", clusters: {folder / 'clusters.safetensors'}"
    data = str(folder / "captions.jsonl")
    recipe = write_recipe(folder / "p.yaml", PRETRAINING, towers[1], data, more, steps=8, eval_every=0)
    whole, cut = whole_and_resumed(recipe, folder, monkeypatch)
    assert len(losses(cut)) == 8
    assert losses(cut) == losses(whole)


@pytest.mark.parametrize("name", ["train", "values", "my.data"])
def test_ordinary_names_of_files_are_names_of_tasks(folder, towers, name, capsys):
    data = folder / f"{name}.jsonl"
    data.write_text((folder / "answers.jsonl").read_text())
    recipe = write_recipe(folder / "t.yaml", TASKS, towers[1], str(data), steps=1, eval_every=0)
    assert main(["train", str(recipe), "--out", str(folder / "run")]) == 0
    assert main(["eval", str(folder / "run" / "model"), "--data", str(data)]) == 0


def test_errors_in_the_evaluation_are_found_before_training(recipe, folder, towers, capsys):
    boxes = str(folder / "boxes.jsonl")
    assert main(["train", str(recipe), "--eval_data", boxes, "--out", str(folder / "a")]) == 2
    assert "one source cannot be the test data of several streams" in capsys.readouterr().err
    alone = write_recipe(folder / "t.yaml", TASKS, towers[1], str(folder / "answers.jsonl"))
    assert main(["train", str(alone), "--eval_data", boxes, "--out", str(folder / "b")]) == 2
    assert "records with several kinds of target: box (" in capsys.readouterr().err
    (folder / "gone.jsonl").write_text('{"image": "none.png", "question": "what?", "answer": "red"}')
    skipping = ["--data", str(folder / "gone.jsonl"), "--skip_bad_records", "true"]
    assert main(["train", str(alone), *skipping, "--out", str(folder / "c")]) == 2
    assert "none.png: no such file" in capsys.readouterr().err
    assert not any((folder / name).exists() for name in "abc")


def test_pretraining_then_a_task(folder, towers, tmp_path, capsys):
    source = RegionsConfig(tower=towers[1], image_size=0).open().source
    images = [picture(tmp_path / f"{n}.png", COLOURS[n % 4], n).decode() for n in range(20)]
    ClusteredRegions.fit(source, images, clusters=4).save(folder / "clusters.safetensors")
    more = f", clusters: {folder / 'clusters.safetensors'}"
    recipe = write_recipe(folder / "p.yaml", PRETRAINING, towers[1], str(folder / "captions.jsonl"), more)
    assert main(["train", str(recipe), "--out", str(folder / "pretrained")]) == 0
    metrics = json.loads((folder / "pretrained" / "metrics.json").read_text())
    assert {"words", "regions", "alignment"} <= set(metrics["held_out"]["captions"])
    assert "recall_at_1_text_to_image" in metrics["tasks"]["captions"]["figures"]
    capsys.readouterr()
    model = str(folder / "pretrained" / "model")
    assert main(["eval", model, "--task", "retrieval", "--data", str(folder / "captions.jsonl"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["n"] == 20
    at_10, at_1 = (found["figures"][f"recall_at_{count}_image_to_text"]["value"] for count in (10, 1))
    assert at_10 >= at_1

    data = f"pairs:{folder / 'captions.jsonl'}"
    tuned = write_recipe(folder / "t.yaml", TASKS, towers[1], data)
    arguments = ["train", str(tuned), "--out", str(folder / "tuned"), "--model.start_from", model]
    assert main(arguments) == 0
    assert (
        main(["eval", str(folder / "tuned" / "model"), "--task", "retrieval", "--data", f"{folder}/captions.jsonl"])
        == 0
    )
    pretrained = str(folder / "pretrained" / "model")
    assert main(["eval", pretrained, "--data", str(folder / "answers.jsonl")]) == 2
    assert "cannot answer it" in capsys.readouterr().err


def write_regions(folder: Path, to: Path, width: int = 8) -> str:
    """Region files of the pictures in a folder: two boxes each; the feature of the first depends on the colour."""
    to.mkdir()
    boxes = np.array([[0, 0, 16, 32], [16, 0, 32, 32]], dtype=np.float32)
    for number in range(20):
        features = np.zeros((2, width), dtype=np.float32)
        features[0, number % 4] = 5.0
        record = {"bbox": boxes, "features": features, "num_boxes": 2, "image_width": 32, "image_height": 32}
        np.save(to / f"{number}.npy", record)
    return str(to)


def test_a_model_is_evaluated_with_other_region_files(folder, capsys):
    trained_on = write_regions(folder, folder / "regions")
    recipe = write_recipe(folder / "t.yaml", TASKS, "null", str(folder / "answers.jsonl"), f", files: {trained_on}")
    assert main(["train", str(recipe), "--out", str(folder / "run")]) == 0
    model, data = str(folder / "run" / "model"), str(folder / "answers.jsonl")
    capsys.readouterr()

    def accuracy(*more: str) -> float:
        assert main(["eval", model, "--data", data, "--json", *more]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]["accuracy"]["value"]

    before = accuracy()
    (folder / "regions").rename(folder / "moved")
    assert main(["eval", model, "--data", data]) == 2
    assert "regions: no such file or folder" in capsys.readouterr().err
    assert accuracy("--regions", str(folder / "moved")) == before
    narrow = write_regions(folder, folder / "narrow", width=6)
    assert main(["eval", model, "--data", data, "--regions", narrow]) == 2
    assert "its region features have the width 6, and the model reads 8" in capsys.readouterr().err


def test_a_bad_record_in_a_worker_process_is_a_one_line_error(folder, towers, capsys):
    """A region file with fewer boxes than stated is found when its batch is made."""
    regions = write_regions(folder, folder / "regions")
    np.save(
        folder / "regions" / "3.npy",
        {**np.load(folder / "regions" / "3.npy", allow_pickle=True).item(), "num_boxes": 5},
    )
    recipe = write_recipe(
        folder / "t.yaml", TASKS, "null", str(folder / "answers.jsonl"), f", files: {regions}", steps=20, eval_every=0
    )
    said = []
    for workers in (0, 1):
        out = str(folder / f"run {workers}")
        assert main(["train", str(recipe), "--train.workers", str(workers), "--out", out]) == 2
        said.append(capsys.readouterr().err)
        assert "Traceback" not in said[-1]
        assert "image 3: states 5 boxes and has 2" in said[-1]
    assert said[0].replace("run 0", "run 1") == said[1]


def test_a_dual_encoder_ranks_and_shortlists(folder, towers, capsys):
    recipe = folder / "dual.yaml"
    side = "{width: 32, depth: 1, heads: 2, mlp_width: 64}"
    text = "{vocabulary_size: 80, max_length: 16, width: 32, depth: 1, heads: 2, mlp_width: 64}"
    recipe.write_text(
        f"""model:
  class_path: vislang.models.dual_encoder.model.DualEncoderRecipe
  init_args:
    encoders: {{text: {text}, vision: {side}, width: 16}}
    regions: {{tower: {towers[1]}, image_size: 0}}
    chunk: 4
data: {folder / "captions.jsonl"}
hold_out: 0.2
train: {{steps: 6, batch_size: 8, eval_every: 3, eval_examples: 4, checkpoint_every: 3}}
"""
    )
    assert main(["train", str(recipe), "--out", str(folder / "dual")]) == 0
    capsys.readouterr()
    dual, data = str(folder / "dual" / "model"), str(folder / "captions.jsonl")
    assert main(["eval", dual, "--task", "retrieval", "--data", data, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    choosing = write_recipe(folder / "t.yaml", TASKS, towers[1], f"pairs:{data}", steps=1, eval_every=0)
    assert main(["train", str(choosing), "--out", str(folder / "slow")]) == 0
    capsys.readouterr()
    slow = ["eval", str(folder / "slow" / "model"), "--task", "retrieval", "--data", data, "--json"]
    assert main([*slow, "--shortlist", dual, "--shortlist-size", "1"]) == 0
    short = json.loads(capsys.readouterr().out)
    # With one candidate each, the recall of the slower model cannot exceed that of the faster one.
    at_1 = "recall_at_1_text_to_image"
    assert short["figures"][at_1]["value"] <= alone["figures"][at_1]["value"] <= 1
    assert alone["n"] == short["n"] == 20
    assert main([*slow, "--shortlist", str(folder)]) == 2
    assert "no config.json" in capsys.readouterr().err


def test_a_benchmark_is_evaluated_from_predictions_and_by_a_model(recipe, folder, capsys):
    records = [{"id": n, "img": f"{n}.png", "label": n % 2, "text": "is it?"} for n in range(4)]
    (folder / "dev_seen.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    (folder / "said.csv").write_text("id,proba,label\n0,0.1,0\n1,0.9,1\n2,0.6,1\n3,0.7,1\n")
    asked = ["--task", "hateful-memes", "--data", str(folder), "--split", "dev_seen", "--json"]
    assert main(["eval", str(folder / "said.csv"), *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figures"]["accuracy"]["value"] == 0.75
    assert found["figures"]["auroc"]["value"] == 1
    data = f"hateful-memes:{folder}:dev_seen"
    assert main(["train", str(recipe), "--data", data, "--out", str(folder / "run"), "--train.stop_and_go=false"]) == 0
    capsys.readouterr()
    assert main(["eval", str(folder / "run" / "model"), *asked]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["figures"]["auroc"]["value"] <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL"], "give a --task (vislang tasks lists them), or data of your own with --data"),
        (["MODEL", "--task", "unheard-of"], "no task 'unheard-of'. The tasks are cmu-mosei, cmu-mosei-audio"),
        (["MODEL", "--task", "vqa"], "vqa needs data. Write vqa:"),
        (["MODEL", "--task", "vqa", "--data", "nowhere"], "no such folder"),
        (["MODEL", "--data", "nowhere.jsonl"], "nowhere.jsonl: cannot be read (No such file"),
        (["MODEL", "--task", "retrieval"], "retrieval needs data. Write retrieval:SOURCE, or "),
        (
            ["MODEL", "--data", "FOLDER/boxes.jsonl"],
            "it has no head for targets of the kind box; it has answers (answers)",
        ),
        (
            ["MODEL", "--data", "FOLDER/answers.jsonl", "--head", "boxes"],
            "no head 'boxes': this model has answers (answers)",
        ),
        (
            ["MODEL", "--data", "FOLDER/answers.jsonl", "--split", "dev"],
            "FOLDER/answers.jsonl: has no splits. Remove the split 'dev'",
        ),
        (
            ["MODEL", "--task", "easy-vqa", "--data", "FOLDER/answers.jsonl"],
            "--data: easy-vqa comes with its own data. Leave out --data or --task.",
        ),
        (
            ["MODEL", "--task", "retrieval", "--data", "FOLDER/captions.jsonl", "--head", "x"],
            "has no head for choices",
        ),
        (["MODEL", "--task", "easy-vqa", "--split", "dev"], "easy-vqa: no split 'dev'. The splits are train, test"),
        (["MODEL", "--data", "FOLDER/answers.jsonl", "--shortlist", "x"], "--shortlist has no effect: FOLDER"),
        (
            ["MODEL", "--task", "retrieval", "--data", "FOLDER/captions.jsonl", "--split", "x"],
            "retrieval: has no splits. Remove the split 'x'",
        ),
        (
            ["MODEL", "--data", "FOLDER/answers.jsonl", "--out", "FOLDER/answers.jsonl/x"],
            "answers.jsonl is a file. Give the path of a folder",
        ),
        (["MODEL", "--task", "retrieval", "--data", "FOLDER/bad.jsonl"], "2 bad records"),
    ],
)
def test_careless_evaluation(folder, towers, tmp_path_factory, arguments, message, capsys):
    recipe = write_recipe(folder / "a.yaml", TASKS, towers[1], str(folder / "answers.jsonl"), steps=1, eval_every=0)
    assert main(["train", str(recipe), "--out", str(folder / "run")]) == 0
    capsys.readouterr()
    (folder / "bad.jsonl").write_text((folder / "captions.jsonl").read_text() + "\nno json\n[]\n")
    message = message.replace("FOLDER", str(folder))
    made = [a.replace("MODEL", str(folder / "run" / "model")).replace("FOLDER", str(folder)) for a in arguments]
    assert main(["eval", *made]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--train.stop_and_go=true", "--train.eval_every=0"], "stop_and_go goes by scores on held-out examples"),
        (["--model.streams.width=33"], "width 33 is not a multiple of 2 heads"),
        (["--model.streams.single_stream=true", "--model.streams.width=64"], "single_stream: all widths must be equal"),
        (["--data=nothing"], "nothing: no such source. A source is"),
        (["--model.regions.tower=nothing"], "vision tower 'nothing'"),
        (["--hold_out=0"], "no records are left for scoring"),
    ],
)
def test_careless_training(folder, towers, overrides, message, capsys):
    recipe = write_recipe(folder / "a.yaml", TASKS, towers[1], str(folder / "answers.jsonl"), steps=1)
    assert main(["train", str(recipe), "--out", str(folder / "run"), *overrides]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "run" / "model").exists()


def test_bad_records_are_listed_or_skipped(folder, towers, capsys):
    file = folder / "answers.jsonl"
    file.write_text(file.read_text() + '\n{"image": "none.png", "question": "x", "answer": "y"}\n{oh\n')
    recipe = write_recipe(folder / "a.yaml", TASKS, towers[1], str(file), steps=1)
    assert main(["train", str(recipe), "--out", str(folder / "run")]) == 2
    error = capsys.readouterr().err
    assert "2 bad records" in error
    assert "answers.jsonl:21" in error
    assert "answers.jsonl:22" in error
    assert main(["train", str(recipe), "--out", str(folder / "run"), "--skip-bad-records"]) == 0
    assert main(["eval", str(folder / "run" / "model"), "--data", str(file)]) == 2
    assert main(["eval", str(folder / "run" / "model"), "--data", str(file), "--skip-bad-records"]) == 0
