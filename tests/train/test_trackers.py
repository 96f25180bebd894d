"""Trackers: each gets the recipe, every row and the end, read back from where it keeps them; one that fails is left
out, and the run continues."""

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train.line import EXAMPLES, Line
from vislang.cli import main
from vislang.errors import UserError
from vislang.runs import trackers
from vislang.runs.trackers import FILE, Trackers, TrackingNotice
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.loop import train

RECIPE = {"train": {"lr": 0.001, "steps": 6}, "data": "numbers", "odd (name)": None}


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed; pip install {package}")


def run(folder: Path, name: str, steps: int, resume: bool = False) -> list[dict]:
    """A small run with a tracker; returns the rows of its log."""
    config = TrainConfig(steps=steps, batch_size=4, checkpoint_every=3)
    with Trackers([name], folder, RECIPE, resume) as tracking:
        stream = Stream("numbers", EXAMPLES, 1.0, 4)
        train(Line(), [stream], config, folder, tracking, lambda: {"error (mean)": 0.25}, resume)
    return read_metrics(folder / "metrics.jsonl")


def interrupted(folder: Path, name: str) -> list[dict]:
    """A run that was killed after step 4, and continued to step 6 from its checkpoint of step 3."""
    folder.mkdir()
    run(folder, name, 4)
    shutil.rmtree(folder / "checkpoints" / "step-00000004")
    return run(folder, name, 6, resume=True)


def expected(rows: list[dict], name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]


@needs("tensorboard")
def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = interrupted(tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {name for row in rows for name in row} - {"step"}
    for name in ("loss", "gradient_norm", "speed/examples_per_second", "eval/error (mean)"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        # What the first part logged after its checkpoint is replaced; numbers are kept in 32 bits.
        wanted = expected(rows, name)
        assert [step for step, _ in found] == [step for step, _ in wanted]
        assert [value for _, value in found] == pytest.approx([value for _, value in wanted], rel=1e-6)
    (text,) = events.Tensors("recipe/text_summary")
    assert '"lr": 0.001' in text.tensor_proto.string_val[0].decode()


def wandb_records(path: Path):
    """The records of a file of W&B: a header of 7 bytes, and then LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    data, position, whole = path.read_bytes(), 7, b""
    while position < len(data):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@needs("wandb")
def test_wandb_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    rows = interrupted(tmp_path / "run", "wandb")
    history, runs, config, exits = {}, set(), {}, []
    for file in sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")):
        for record in wandb_records(file):
            if record.WhichOneof("record_type") == "run":
                runs.add((record.run.run_id, record.run.project, record.run.display_name))
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif record.WhichOneof("record_type") == "history":
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                history.setdefault(row["_step"], {}).update(row)
            elif record.WhichOneof("record_type") == "exit":
                exits.append(record.exit.exit_code)
    assert runs == {(json.loads((tmp_path / "run" / FILE).read_text())["wandb"], "vislang", "run")}
    assert config["train"] == RECIPE["train"]
    assert exits == [0, 0]
    for name in ("loss", "eval/error (mean)"):
        wanted = dict(expected(rows, name))
        assert {step: row[name] for step, row in history.items() if name in row and step in wanted} == wanted


@needs("mlflow")
def test_mlflow_in_a_local_store(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    rows = interrupted(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("vislang")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == json.loads((tmp_path / "run" / FILE).read_text())["mlflow"]
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params == {"train.lr": "0.001", "train.steps": "6", "data": "numbers", "odd _name_": "None"}
    for name, kept in {"loss": "loss", "loss/error": "loss.error", "eval/error (mean)": "eval.error _mean_"}.items():
        history = {metric.step: metric.value for metric in client.get_metric_history(found.info.run_id, kept)}
        wanted = dict(expected(rows, name))
        assert {step: value for step, value in history.items() if step in wanted} == wanted


@needs("trackio")
def test_trackio(tmp_path):
    # trackio decides where its data lie when it is imported.
    code = (
        "import sys; from pathlib import Path; from tests.train.test_trackers import interrupted;"
        "interrupted(Path(sys.argv[1]), 'trackio')"
    )
    folder = tmp_path / "run"
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, check=True, timeout=300)
    rows = read_metrics(folder / "metrics.jsonl")
    read = (
        "import json, sys; from trackio.sqlite_storage import SQLiteStorage as s; name, = s.get_runs('vislang');"
        "print(json.dumps([name, s.get_run_config('vislang', name), s.get_logs('vislang', name)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", read], env=environment, check=True, timeout=300, capture_output=True, text=True
    )
    name, config, logs = json.loads(done.stdout.splitlines()[-1])
    assert name == json.loads((folder / FILE).read_text())["trackio"]
    assert config["train"] == RECIPE["train"]
    for metric in ("loss", "eval/error (mean)"):
        wanted = dict(expected(rows, metric))
        assert {row["step"]: row[metric] for row in logs if metric in row and row["step"] in wanted} == wanted


class Broken:
    """A tracker whose server goes away."""

    run_id = "7"

    def __init__(self, folder, recipe, run_id):
        self.lines = []

    def log(self, step, values):
        self.lines.append((step, values))
        if step == 2:
            raise ConnectionError("no route to host")

    def close(self, failed):
        raise AssertionError("it is no longer told anything")


class Recorder(Broken):
    """A tracker that keeps what it receives."""

    def log(self, step, values):
        self.lines.append((step, values))

    def close(self, failed):
        self.failed = failed


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "TRACKERS", {"broken": Broken, "recorder": Recorder})
    with Trackers(["broken", "recorder"], tmp_path, RECIPE) as tracking:
        broken, recorder = tracking._open.values()
        config = TrainConfig(steps=4, batch_size=4)
        with pytest.warns(TrackingNotice, match=r"--track broken: failed \(no route to host\)") as caught:
            train(Line(), [Stream("numbers", EXAMPLES, 1.0, 4)], config, tmp_path, tracking)
        assert [warning.category for warning in caught].count(TrackingNotice) == 1
    assert [step for step, _ in broken.lines] == [1, 2]
    assert [step for step, _ in recorder.lines] == [1, 2, 3, 4]
    assert recorder.failed is False
    rows = [{k: v for k, v in row.items() if k != "step"} for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert [values for _, values in recorder.lines] == rows


def test_a_run_that_stops_early_is_marked_as_failed_and_nan_is_no_number_to_send(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "TRACKERS", {"recorder": Recorder})

    def stopped():
        with Trackers(["recorder"], tmp_path, RECIPE) as tracking:
            (recorder,) = tracking._open.values()
            tracking.evaluated(3, {"step": 3, "eval/pearson_r": float("nan"), "eval/mae": 0.5})
            assert recorder.lines == [(3, {"eval/mae": 0.5})]
            found.append(recorder)
            raise RuntimeError("stopped")

    found = []
    with pytest.raises(RuntimeError, match="stopped"):
        stopped()
    assert found[0].failed is True


def test_a_tracker_that_cannot_start_is_an_error_before_the_first_step(tmp_path, monkeypatch):
    class Closed(Broken):
        def __init__(self, *arguments):
            raise OSError("not logged in")

    monkeypatch.setattr(trackers, "TRACKERS", {"recorder": Recorder, "closed": Closed})
    with pytest.raises(UserError, match=r"--track closed: it could not start \(not logged in\)"):
        Trackers(["recorder", "closed"], tmp_path, RECIPE)
    assert not (tmp_path / FILE).exists()


def test_track_names_what_there_is_and_what_to_install(recipe, pictures, tmp_path, capsys, monkeypatch):
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--track", "tensorbored"]) == 2
    assert "no such tracker; there are tensorboard, trackio, wandb, mlflow" in capsys.readouterr().err
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--track", "mlflow"]) == 2
    assert "mlflow is not installed. Run: pip install mlflow" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
