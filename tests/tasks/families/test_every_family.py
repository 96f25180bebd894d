"""Every benchmark: its files in good and bad order, its submission file, and every model that can answer it."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest

from tests.tasks.families.family import families_by_name, values
from tests.tasks.families.models import GENERAL
from tests.tasks.official import FOLDERS, lines
from vislang.cli import main
from vislang.errors import UserError
from vislang.evaluate.evaluation import evaluate
from vislang.evaluate.ways import cell
from vislang.example import Answers, Label, Prediction, Text, Value
from vislang.metrics.figure import METRICS, figures_as_json
from vislang.tasks.benchmarks import BENCHMARKS
from vislang.tasks.catalogue import TASKS
from vislang.tasks.task import images_of, media_of

FAMILIES = families_by_name()
NAMES = list(FAMILIES)
SENT = [name for name in NAMES if FAMILIES[name].sent is not None]
CELLS = [(name, model) for name in NAMES for model in FAMILIES[name].cells]
BAD = [(name, bad) for name in NAMES for bad in FAMILIES[name].bad]
TEXT = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".py")


def official(folder):
    """The official files of a folder that are text."""
    return [path for path in sorted(folder.rglob("*")) if path.suffix in TEXT and path.is_file()]


def read(name, folder):
    """All examples of a folder."""
    task = BENCHMARKS[name](folder)
    return [example for split in task.splits for example in task.examples(split)]


def test_every_benchmark_is_tested_here_or_beside_its_older_tests():
    assert set(FAMILIES) | set(FOLDERS) >= set(BENCHMARKS)
    assert set(FAMILIES) <= set(BENCHMARKS) <= set(TASKS)


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_what_the_entry_says(name, task_of):
    task, made = task_of(name), BENCHMARKS[name]
    examples = task.examples(task.default_split)
    assert task.default_split in task.splits
    kinds = {"answers": Answers, "text": Text, "label": Label, "value": Value}
    for example in examples:
        assert isinstance(example.target, kinds[made.kind])
        assert example.task == name
        assert example.source
        for medium in example.media:
            assert medium.is_there
    assert media_of(examples) <= made.media
    assert images_of(examples) <= made.images


@pytest.mark.parametrize("name", SENT)
def test_the_official_file_of_predictions_is_scored(name, good, tmp_path):
    family, task = FAMILIES[name], BENCHMARKS[name](good / name)
    examples = task.examples(task.default_split)
    path = good / f"{name}.sent" / family.sent[0]
    predictions = task.read_predictions(path, examples)
    found = values(task.score(examples, predictions))
    assert found
    assert all(any(metric.startswith(known) for known in METRICS) for metric in found)
    assert set(found) & set(task.metrics)
    assert len(task.score_each(examples, predictions).scores) == len(examples)
    # What was read is written, and read again.
    written = task.submission(examples, predictions)
    assert (written and written[0]) == family.submission
    if written is not None:
        (tmp_path / written[0]).write_text(written[1], encoding="utf-8")
        again = task.read_predictions(tmp_path / written[0], examples)
        assert values(task.score(examples, again)) == pytest.approx(found)
    (tmp_path / "predictions.jsonl").write_text(lines(p.as_record() for p in reversed(predictions)))
    assert task.read_predictions(tmp_path / "predictions.jsonl", examples) == predictions


@pytest.mark.parametrize("name", SENT)
def test_predictions_that_are_missing_extra_or_duplicate_are_named(name, good, tmp_path):
    task = BENCHMARKS[name](good / name)
    examples = task.examples(task.default_split)
    predictions = task.read_predictions(good / f"{name}.sent" / FAMILIES[name].sent[0], examples)
    path = tmp_path / "predictions.jsonl"
    for fault, changed in {
        "no prediction for 1 of": predictions[:-1],
        "no record for 1 of": [*predictions, Prediction("999999", predictions[0].answer)],
        "several predictions for 1 of": [*predictions, predictions[0]],
    }.items():
        path.write_text(lines(p.as_record() for p in changed))
        with pytest.raises(UserError, match=fault) as raised:
            task.read_predictions(path, examples)
        assert "predictions.jsonl" in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_off_or_in_another_encoding_is_named(name, folder_of):
    family, folder = FAMILIES[name], folder_of(name)
    files = official(folder)
    assert files or not family.bad
    for path in files:
        whole = path.read_bytes()
        damaged = [whole.decode().encode("utf-16"), b"\x00\xff\x02"]
        if str(path.relative_to(folder)) not in family.whole:
            damaged += [whole[: len(whole) // 2], whole.rstrip()[:-1]]
        for content in damaged:
            path.write_bytes(content)
            with pytest.raises(UserError) as raised:
                read(name, folder)
            assert path.name in str(raised.value)
        path.write_bytes(whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_byte_order_mark_changes_nothing(name, folder_of, good):
    folder = folder_of(name)
    for path in official(folder):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [e.id for e in read(name, folder)] == [e.id for e in read(name, good / name)]


@pytest.mark.parametrize("name", [name for name in NAMES if FAMILIES[name].repeated is not None])
def test_an_id_that_occurs_twice_is_named(name, folder_of):
    folder = folder_of(name)
    file, repeat = FAMILIES[name].repeated
    path = folder / file
    path.write_text(repeat(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"two records have the id|is also that of record|is in the object twice"
    ) as raised:
        read(name, folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize(("name", "bad"), BAD, ids=[f"{name} {bad.file} {bad.new}" for name, bad in BAD])
def test_a_fault_of_an_official_file_is_named(name, bad, folder_of):
    folder = folder_of(name)
    path = folder / bad.file
    before = path.read_text(encoding="utf-8")
    assert bad.old in before
    path.write_text(before.replace(bad.old, bad.new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=bad.message) as raised:
        read(name, folder)
    assert path.name in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_split_that_does_not_exist_names_those_that_do(name, task_of):
    task = task_of(name)
    for split in ("none", "*"):
        with pytest.raises(UserError, match=r"no split '.*'\. The splits are") as raised:
            task.examples(split)
        assert task.default_split in str(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_cannot_answer_says_why(name, good, model_for):
    """All models but those that are fitted to a task: they are in the cells of those that they can be fitted to."""
    task = BENCHMARKS[name](good / name)
    cells = FAMILIES[name].cells
    for model in GENERAL:
        # A Flamingo that was trained on videos reads images as well.
        if model not in cells and not (model == "flamingo of videos" and "flamingo" in cells):
            found = cell(model_for(model, task), task)
            assert found.way is None, (model, found)
            assert found.why_not


@pytest.mark.parametrize(("name", "model"), CELLS)
def test_a_model_answers_and_is_scored(name, model, good, model_for, tmp_path, capsys):
    """The evaluation has a figure, and its file of predictions the same figures without the model."""
    family, task = FAMILIES[name], BENCHMARKS[name](good / name)
    examples = task.examples(task.default_split)
    built = model_for(model, task)
    assert cell(built, task).way == family.cells[model]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = evaluate(built, task, examples, task.support(), with_blind=False, with_perplexity=False)
    assert found.way == family.cells[model]
    assert [p.id for p in found.predictions] == task.ids(examples)
    assert found.figures
    path = tmp_path / "predictions.jsonl"
    path.write_text(lines(p.as_record() for p in found.predictions))
    assert main(["eval", str(path), "--task", f"{name}:{good / name}", "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert again == figures_as_json(found.figures)


@pytest.mark.parametrize("name", NAMES)
def test_a_medium_that_is_missing_is_named(name, folder_of):
    folder = folder_of(name)

    def media():
        task = BENCHMARKS[name](folder)
        return [medium for example in task.examples(task.default_split) for medium in example.media]

    if not media():
        assert not TASKS[name].media & {"image", "video", "audio"}
        return
    path = Path(media()[-1].name)
    path.unlink()
    missing = next(medium for medium in media() if not medium.is_there)
    with pytest.raises(UserError, match=f"{re.escape(path.name)}.*no such file"):
        missing.decode()
