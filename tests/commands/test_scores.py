"""What ``vislang eval`` keeps and scores again; the tasks that a recipe names."""

from __future__ import annotations

import json

import pytest
import torch

from tests import tiny
from tests.evaluate import cells
from tests.tasks.official import FOLDERS, draw, lines, vcr_record, write
from vislang.cli import main
from vislang.metrics.figure import figures_as_json
from vislang.recipe import read_recipe
from vislang.runs.scores import final_scores, named_tasks, stream_tasks
from vislang.runs.streams import read_streams
from vislang.tasks.catalogue import open_task


@pytest.fixture(scope="module")
def flamingo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    cells.flamingo(tiny.save_towers(folder, positions=1024)).save(folder / "flamingo")
    return str(folder / "flamingo")


@pytest.fixture
def memes(tmp_path):
    FOLDERS["hateful-memes"](tmp_path / "memes")
    return f"hateful-memes:{tmp_path / 'memes'}"


@pytest.fixture
def answered(flamingo, memes, tmp_path, capsys):
    """The folder of an evaluation of three of the four memes."""
    out = tmp_path / "out"
    assert main(["eval", flamingo, "--task", memes, "--limit", "3", "--seed", "5", "--out", str(out)]) == 0
    capsys.readouterr()
    return out


def error(capsys, *arguments: str) -> str:
    """The one line of a mistake; nothing is printed as a result."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_a_draw_is_scored_again_as_it_was_drawn(answered, memes, capsys):
    before = json.loads((answered / "results.json").read_text())
    assert (before["n"], before["limit"], before["seed"], before["split"]) == (3, 3, 5, "dev_seen")
    file = str(answered / "predictions.jsonl")
    assert main(["eval", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"] == before["figures"]
    # Named by hand it is the same draw, by another seed another one.
    named = ["eval", file, "--task", memes, "--limit", "3", "--json"]
    assert main([*named, "--seed", "5"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"] == before["figures"]
    kept = {row["id"] for row in map(json.loads, (answered / "predictions.jsonl").read_text().splitlines())}
    task = open_task(memes)
    examples = task.examples("dev_seen")
    other = next(n for n in range(9) if {e.id for e in task.subset(examples, 3, n)} != kept)
    assert "no prediction for 1 of 3 records" in error(capsys, *named, "--seed", str(other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "no prediction for 1 of 3 records: {0}."),
        (lambda rows: [*rows, {**rows[0], "id": "77"}], "no record for 1 of 4 predictions: 77."),
        (lambda rows: [*rows, rows[2]], "several predictions for 1 of 3 records: {2}."),
        (
            lambda rows: [{**rows[0], "answer": 1}, *rows[1:]],
            "predictions.jsonl, record 1: prediction {0}: 1 is not a label; write it as a text",
        ),
        (
            lambda rows: [{**rows[0], "answer": {"a": 1}}, *rows[1:]],
            "predictions.jsonl, record 1: {{'a': 1}} is not an answer",
        ),
    ],
)
def test_predictions_that_are_not_those_of_all_records_are_named(answered, capsys, change, message):
    """Nothing is scored on a subset."""
    file = answered / "predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text(lines(change(rows)))
    assert message.format(*(row["id"] for row in rows)) in error(capsys, "eval", str(file), "--json")


def test_predictions_with_shots_are_complete_for_every_setting(flamingo, memes, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["eval", flamingo, "--task", memes, "--shots", "1", "--seeds", "2", "--out", str(out)]) == 0
    capsys.readouterr()
    file = out / "predictions.jsonl"
    rows = file.read_text().splitlines()
    file.write_text("\n".join(rows[:-1]))
    assert "no prediction for 1 of 4 records: 14." in error(capsys, "eval", str(file))


def test_texts_without_media_are_asked_after_shots(flamingo, tmp_path, capsys):
    file, out = tmp_path / "texts.jsonl", tmp_path / "out"
    file.write_text(lines({"text": f"text {n}", "label": ("red", "blue")[n % 2]} for n in range(8)))
    arguments = ["--task", str(file), "--shots", "0,2", "--seeds", "1", "--out", str(out), "--json"]
    assert main(["eval", flamingo, *arguments]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    # There is nothing that could be taken away, exchanged or compared.
    assert [(point["shots"], point["variant"]) for point in points] == [
        (0, "plain"),
        (2, "plain"),
        (2, "labels_shuffled"),
    ]
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [row["prompt"].count("<end>") for row in rows] == [2] * len(rows)


def test_what_is_asked_is_never_among_its_shots(flamingo, memes, tmp_path, capsys):
    """Not even where the split to draw shots from is the one that is asked."""
    out = tmp_path / "out"
    arguments = ["--task", f"{memes}:train", "--shots", "2", "--seeds", "1", "--out", str(out)]
    assert main(["eval", flamingo, *arguments]) == 0
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == 2
    for row in (row for row in rows if row["variant"] in ("plain", "blind", "images_shuffled")):
        assert row["prompt"].count(f"{row['id']}.png") == (0 if row["variant"] == "blind" else 1)


def test_a_file_of_predictions_can_be_turned_into_a_submission(answered, memes, tmp_path, capsys):
    again = tmp_path / "again"
    assert main(["eval", str(answered / "predictions.jsonl"), "--out", str(again)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "the predictions" in shown
    assert f"wrote results and predictions to {again}" in shown
    for name in ("predictions.jsonl", "hateful_memes_predictions.csv"):
        assert (again / name).read_text() == (answered / name).read_text()
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (answered, again))
    assert (second["way"], second["figures"]) == ("file", first["figures"])
    said = error(capsys, "eval", str(again / "predictions.jsonl"), "--out", str(again))
    assert "contains predictions.jsonl, which is scored" in said


def test_a_test_split_without_labels_gives_a_submission(flamingo, tmp_path, capsys):
    """The leaderboard keeps the answers to itself."""
    for number in range(2):
        draw(tmp_path / "vcr" / "vcr1images" / "movie" / "a.jpg", number)
    write(tmp_path / "vcr" / "test.jsonl", lines([vcr_record(0), vcr_record(1)]))
    spec, out = f"vcr:{tmp_path / 'vcr'}:test", tmp_path / "out"
    said = error(capsys, "eval", flamingo, "--task", spec)
    assert "no record has a target, so nothing can be scored. Use --out to write the predictions" in said
    said = error(capsys, "eval", flamingo, "--task", spec, "--report", str(out.with_suffix(".html")))
    assert "--report: no record of vcr has a target" in said
    assert main(["eval", flamingo, "--task", spec, "--out", str(out)]) == 0
    assert "10 predictions; no record has a target" in capsys.readouterr().out
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 10
    assert len((out / "vcr_submission.csv").read_text().splitlines()) == 3
    assert json.loads((out / "results.json").read_text())["figures"] == {}
    assert "has no label" in error(capsys, "eval", str(out / "predictions.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "--task", "TASK", "--shots", "1", "--way", "rank"], "--way: not used together with --shots"),
        (["MODEL", "--task", "TASK", "--shots", "1", "--head", "x"], "--head: not used together with --shots"),
        (["FILE", "--shots", "1"], "--shots: no effect, because FILE is a file of predictions"),
        (["FILE", "--way", "rank"], "--way: no effect, because FILE is a file of predictions"),
        (["FILE", "--limit", "2"], "results.json. Leave it out, or give the --task, too"),
        (
            ["MODEL", "--task", "TASK:dev_seen", "--split", "train"],
            "names the split dev_seen, and --split train another",
        ),
        (["MODEL", "--task", "TASK", "--way", "match"], "--way match: a Flamingo can answer hateful-memes by: rank."),
        (["MODEL", "--task", "TASK", "--shots", "5"], "hateful-memes has 4 examples to draw from"),
    ],
)
def test_options_that_would_be_ignored_or_do_not_fit(flamingo, memes, answered, capsys, arguments, message):
    named = {"MODEL": flamingo, "FILE": str(answered / "predictions.jsonl")}
    words = [named.get(word, word).replace("TASK", memes) for word in arguments]
    assert message.replace("FILE", named["FILE"]) in error(capsys, "eval", *words)


def test_captions_are_not_chosen_among_those_of_the_split_that_is_asked(towers, tmp_path, capsys):
    FOLDERS["captions"](tmp_path / "captions")
    spec = f"captions:{tmp_path / 'captions'}"
    cells.dual_encoder(towers, open_task(spec).support()).save(tmp_path / "dual")
    said = error(capsys, "eval", str(tmp_path / "dual"), "--task", spec, "--split", "train")
    assert "answers it by the way 'match', which takes its answers from the split 'train'. Evaluate another" in said


def test_predictions_without_results_beside_them_need_a_task(answered, capsys):
    (answered / "results.json").write_text("{}")
    assert "does not name a task" in error(capsys, "eval", str(answered / "predictions.jsonl"))
    (answered / "results.json").unlink()
    assert "give the --task of these predictions" in error(capsys, "eval", str(answered / "predictions.jsonl"))


def test_bad_records_that_were_left_out_are_left_out_again(flamingo, tmp_path, capsys):
    draw(tmp_path / "a.png", 0)
    record = {"image": "a.png", "label": "red"}
    file = tmp_path / "my.jsonl"
    file.write_text(lines([record, {**record, "label": "blue"}, {"image": "none.png", "label": "red"}]))
    out = tmp_path / "out"
    arguments = ["eval", flamingo, "--task", str(file), "--out", str(out), "--json"]
    assert main(arguments) == 2
    capsys.readouterr()
    assert main([*arguments, "--skip-bad-records"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["bad_records"]) == (2, 1)
    assert main(["eval", str(out / "predictions.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"] == found["figures"]


def test_scores_that_are_not_numbers_are_an_error(saved_dual, memes, capsys):
    assert "the model's scores are NaN; its weights are damaged" in error(capsys, "eval", saved_dual, "--task", memes)


@pytest.fixture
def saved_dual(tmp_path, towers):
    """A dual encoder whose weights are no numbers."""
    draw(tmp_path / "a.png", 0)
    (tmp_path / "pairs.jsonl").write_text(lines([{"image": "a.png", "text": "a cat"}]))
    model = cells.dual_encoder(towers, open_task(f"captions:{tmp_path / 'pairs.jsonl'}").examples("all"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    model.save(tmp_path / "dual")
    return str(tmp_path / "dual")


# ------------------------------------------------------------------------------------------- the tasks of a recipe


@pytest.fixture
def recipe_of(tmp_path, towers, pictures):
    """A recipe that scores its model on some tasks."""

    def written(*tasks: str, **more):
        path = tiny.write_recipe(tmp_path / "tiny.yaml", *towers, steps=1, eval_every=0)
        values = {"evaluate": list(tasks) or None, **more}
        path.write_text(path.read_text() + "".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()))
        return path

    return written


def scored_by(path, *overrides: str):
    """The untrained model of a recipe, and what it would be scored on."""
    recipe, _ = read_recipe(path, overrides)
    streams = read_streams(recipe).streams
    model = recipe.model.build().eval()
    named = named_tasks(recipe)
    return model, stream_tasks(model, streams) if named is None else named


def test_the_tasks_of_a_recipe_are_scored_again_from_the_folder_of_its_run(
    recipe_of, memes, pictures, tmp_path, capsys
):
    names = [memes, str(pictures / "my.jsonl")]
    model, tasks = scored_by(recipe_of(*names, eval_limit=2))
    assert [task.name for task in tasks] == names
    found = final_scores(model, tasks, tmp_path / "run")
    assert list(found) == names
    capsys.readouterr()
    folders = sorted((tmp_path / "run" / "evaluation").iterdir())
    assert len(folders) == 2
    for folder in folders:
        results = json.loads((folder / "results.json").read_text())
        assert (results["n"], results["limit"], results["seed"]) == (2, 2, 0)
        assert results["figures"] == figures_as_json(found[results["spec"]].figures)
        assert main(["eval", str(folder / "predictions.jsonl"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["figures"] == results["figures"]
    assert (folders[0] / "hateful_memes_predictions.csv").is_file()


@pytest.mark.parametrize("named", [True, False], ids=["a task of the recipe", "what the run holds out"])
def test_the_limit_of_final_scores_is_a_draw_by_seed(recipe_of, pictures, named):
    path = recipe_of(*([str(pictures / "my.jsonl")] if named else []), eval_limit=4)

    def drawn(seed: int) -> list[str]:
        _, (task,) = scored_by(path, "--hold_out=0.5", f"--train.seed={seed}")
        return [example.id for example in task.examples]

    first = drawn(0)
    assert len(first) == 4
    assert drawn(0) == first
    assert set(drawn(1)) != set(first)
    assert set(first) != {"1", "2", "3", "4"}


def test_a_task_that_the_model_cannot_answer_is_an_error_before_training(recipe_of, tmp_path, capsys):
    FOLDERS["refcoco"](tmp_path / "refcoco")
    path = recipe_of(f"refcoco:{tmp_path / 'refcoco'}")
    for more in (["--dry-run"], ["--out", str(tmp_path / "run")]):
        assert main(["train", str(path), *more]) == 2
        said = capsys.readouterr().err
        assert "evaluate: task refcoco: a Flamingo cannot answer it, because it has no head for targets of the" in said
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "model").exists()
