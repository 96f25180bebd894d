"""The command line, with mistakes of its users."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vislang.cache import cache_path
from vislang.cli import main
from vislang.commands.ask import shot_of
from vislang.errors import UserError


@pytest.fixture
def trained(recipe, pictures, tmp_path):
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from vislang.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'PIL', 'rich', 'jsonargparse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]"), done.stdout


def test_train_eval_ask(trained, pictures, capsys):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"schema", "tasks", "held_out", "train_seconds", "total_seconds"} <= set(metrics)
    (own,) = metrics["tasks"].values()
    assert {"task", "n", "figures", "blind", "guesses"} <= set(own)
    assert set(own["figures"]["accuracy"]) == {"value", "low", "high", "n"}
    assert "accuracy" in own["blind"]
    assert "accuracy" in own["guesses"]["most_frequent_answer"]
    capsys.readouterr()
    assert main(["eval", str(trained / "model"), "--data", str(pictures / "my.jsonl"), "--json"]) == 0
    score = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert score["n"] == 24
    accuracy = score["figures"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert score["reference_perplexity"] >= 1
    assert main(["eval", str(trained / "model"), "--data", str(pictures / "my.jsonl"), "--limit", "5"]) == 0
    assert "5 test examples" in capsys.readouterr().out
    picture = str(pictures / "0.png")
    assert main(["ask", str(trained / "model"), picture, "what color?", "--shot", picture, "what color? red"]) == 0
    assert capsys.readouterr().out.strip() != ""


def test_dry_run_writes_nothing(recipe, pictures, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", str(recipe), "--dry-run", "--out", str(tmp_path / "run")]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "losses text" in capsys.readouterr().out


def test_a_users_file_in_another_form_trains(recipe, pictures, tmp_path):
    lines = [json.dumps({"image": f"{n}.png", "text": f"a {'blue' if n % 2 else 'red'} shape"}) for n in range(24)]
    lines += [json.dumps({"parts": [{"image": "0.png"}, " or ", {"image": "1.png"}, "?"], "target": "red"})]
    (pictures / "captions.jsonl").write_text("\n".join(lines))
    out = tmp_path / "captions"
    data = str(pictures / "captions.jsonl")
    assert main(["train", str(recipe), "--data", data, "--out", str(out), "--train.steps", "4"]) == 0
    assert json.loads((out / "run.json").read_text())["recipe"]["data"] == data
    assert main(["eval", str(out / "model"), "--data", data]) == 0
    assert main(["ask", str(out / "model"), str(pictures / "0.png")]) == 0


def test_data_check_lists_every_bad_record(pictures, capsys):
    file = pictures / "bad.jsonl"
    file.write_text('{"image": "0.png", "text": "x"}\n{"image": "none.png", "text": "x"}\n{"image": "0.png"}\n')
    assert main(["data", "check", str(file)]) == 1
    shown = capsys.readouterr().out
    assert f"{file}:2: " in shown
    assert f"{file}:3: " in shown
    assert "1 good records, 2 bad" in shown
    assert main(["data", "check", str(file), "--json"]) == 1
    assert [problem["line"] for problem in json.loads(capsys.readouterr().out)["bad"]] == [2, 3]
    assert main(["data", "check", str(pictures / "my.jsonl")]) == 0


def test_bad_records_are_an_error_in_training_unless_skipped(recipe, pictures, tmp_path, capsys):
    file = pictures / "bad.jsonl"
    file.write_text((pictures / "my.jsonl").read_text() + '{"image": "none.png", "text": "x"}\n')
    arguments = ["train", str(recipe), "--data", str(file), "--out", str(tmp_path / "run"), "--train.steps=2"]
    assert main(arguments) == 2
    assert "bad.jsonl:25: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--skip-bad-records"]) == 0
    assert "left out 1 bad record" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["bad_records"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.yaml"], "none.yaml: no such recipe"),
        (["train", "RECIPE", "--train.lrr=1"], "lrr"),
        (["train", "RECIPE", "--train.lr=fast"], "fast"),
        (["train", "RECIPE", "--train.steps=-1"], "train.steps is -1"),
        (["train", "RECIPE", "--train.lr_scale={doors: 2}"], "doors"),
        (["train", "RECIPE", "--data", "none.jsonl"], "none.jsonl: cannot be read"),
        (["train", "RECIPE", "--model.language_model=nothing/here"], "nothing/here"),
        (["train", "RECIPE", "--model.bridge.gated_layers=[99]"], "gated_layers [99]"),
        (["ask", "none", "none.png", "what?"], "none.png: no such file"),
        (["eval", "none", "--task", "easy-vqa"], "none: no such folder"),
        (["data", "check", "none.jsonl"], "none.jsonl: cannot be read"),
    ],
)
def test_mistakes_get_a_message_and_no_traceback(arguments, message, recipe, pictures, capsys):
    status = main([str(recipe) if a == "RECIPE" else a for a in arguments])
    assert status == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["doctor", "--fast"], "unrecognized arguments: --fast. See vislang doctor --help."),
        (["ask"], "the following arguments are required: model, image. See vislang ask --help."),
        (["ask", "model", "image", "--top-k", "x"], "--top-k: invalid int value: 'x'. See vislang ask --help."),
        (["ask", "model", "image", "--shot", "a.png"], "--shot: expected 2 arguments. See vislang ask --help."),
        (["eval", "model", "--limit"], "--limit: expected one argument. See vislang eval --help."),
        (["fly"], "no verb 'fly'. The verbs are demo, train, rehearse, eval"),
        (["data", "burn"], "no verb 'data burn'. The verbs are data list, data show, data check, data fetch."),
    ],
)
def test_options_that_do_not_fit_get_one_sentence(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"vislang: {message}")
    assert len(error.splitlines()) == 1


def test_options_between_positional_arguments_and_overrides(capsys):
    assert main(["ask", "model", "none.png", "--beams", "2", "what?"]) == 2
    assert "none.png: no such file" in capsys.readouterr().err
    assert main(["train", "--train.lr", "1e-3", "none.yaml", "--train.steps=3"]) == 2
    assert "none.yaml: no such recipe" in capsys.readouterr().err


def test_doctor_finds_the_assets(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "torch " in shown
    assert "missing" not in shown


def test_doctor_goes_on_where_the_cache_cannot_be_used(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["doctor"]) == 1
    # A long path is broken at the terminal's edge, wherever that falls.
    shown = "".join(capsys.readouterr().out.split())
    message = f"{tmp_path / 'file' / 'cache'}: the cache cannot be written (Not a directory)"
    assert "".join(message.split()) in shown
    assert "efficientnet-lite0:found" in shown
    assert "thedemocannotrun:1missing" in shown


@pytest.mark.parametrize("arguments", ["--help", "data list", "tasks --json"])
def test_a_reader_that_goes_away_is_no_mistake(arguments):
    """Both what is printed and what is drawn as a table."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "vislang.cli", *arguments.split()]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_may_be_closed_from_the_start():
    command = f"{sys.executable} -m vislang.cli data list >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_empty_variable_names_no_cache(monkeypatch):
    monkeypatch.setenv("VISLANG_CACHE", "")
    assert cache_path("features") == Path.home() / ".cache" / "vislang" / "features" or "XDG_CACHE_HOME" in os.environ


def test_torch_is_a_cpu_build_without_cuda_packages():
    import importlib.metadata

    import torch

    assert torch.version.cuda is None
    assert not [d.name for d in importlib.metadata.distributions() if d.name.startswith("nvidia-")]


def test_what_a_shot_says():
    assert shot_of("a.png", "what shape is it? circle", "q?").text == "what shape is it?"
    assert shot_of("a.png", "circle", "q?").text == "q?"
    assert shot_of("a.png", "circle", None).text == ""
    with pytest.raises(UserError, match="no answer"):
        shot_of("a.png", "what?", "q?")
