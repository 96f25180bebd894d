"""The catalogue: names, their entries, and how tasks are opened."""

import json

import pytest
from PIL import Image as Pillow

from vislang.data.problems import DataError
from vislang.data.sources import SOURCES, TRANSLATIONS
from vislang.errors import UserError
from vislang.example import TARGETS, Answers, Choice, Label, Prediction
from vislang.metrics.figure import METRICS
from vislang.tasks.benchmarks import BENCHMARKS
from vislang.tasks.catalogue import ENTRIES, TASKS, open_task
from vislang.tasks.composed import COMPOSED


def test_no_name_has_two_meanings():
    assert len(ENTRIES) == len(TASKS)
    # A set whose records are examples of a task is that task.
    assert set(TASKS) & set(SOURCES) == {"easy-vqa", "easy-vqa-films", "scenes", *COMPOSED, *TRANSLATIONS}
    assert set(BENCHMARKS) < set(TASKS)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_is_complete(entry):
    assert entry.about
    assert entry.kind in (*TARGETS, "pairs")
    assert entry.media <= {"text", "image", "several images", "video", "audio"}
    assert entry.media
    assert entry.metrics
    assert all(any(name.startswith(known) for known in METRICS) for name in entry.metrics)
    assert entry.splits or entry.needs
    assert not (entry.needs and entry.data_sets)


def test_a_set_with_splits_of_its_own_is_opened_by_name():
    task, entry = open_task("easy-vqa"), TASKS["easy-vqa"]
    assert (task.name, task.kind, task.media, task.metrics) == (entry.name, entry.kind, entry.media, entry.metrics)
    assert (task.splits, task.default_split, task.support_split) == (("train", "test"), "test", "train")
    assert open_task("easy-vqa", "train").default_split == open_task("easy-vqa:train").default_split == "train"
    examples = task.examples("test")
    assert len(examples) == 9673
    assert len({example.id for example in examples}) == 9673
    assert len(task.subset(examples, 100, 0)) == 100
    assert task.subset(examples, 100, 0) == task.subset(examples, 100, 0) != task.subset(examples, 100, 1)
    found = task.guesses(task.support(), examples)
    assert found["most_frequent_answer_to_the_same_text"]["accuracy"].value > 0.6
    with pytest.raises(DataError, match=r"easy-vqa: no split 'dev'\. The splits are train, test"):
        open_task("easy-vqa", "dev")


def test_a_benchmark_is_opened_on_its_folder(tmp_path):
    for split in ("train", "dev"):
        record = {"pairID": "1", "Flickr30K_ID": 1, "sentence2": "a dog", "gold_label": "neutral"}
        (tmp_path / f"snli_ve_{split}.jsonl").write_text(json.dumps(record))
    task = open_task(f"snli-ve:{tmp_path}")
    assert (task.splits, task.default_split, task.support_split) == (("dev", "train"), "dev", "train")
    assert open_task(f"snli-ve:{tmp_path}:train").default_split == "train"
    with pytest.raises(DataError, match=r"no split 'test'\. The splits are dev, train"):
        open_task(f"snli-ve:{tmp_path}", "test")
    with pytest.raises(DataError, match=r"snli-ve needs data\. Write snli-ve:FOLDER\[:SPLIT\]\. The folder contains"):
        open_task("snli-ve")


def test_a_name_that_is_not_known():
    with pytest.raises(
        DataError, match=r"no task 'easy-vqq'\. Did you mean easy-vqa\? The tasks are cmu-mosei, .*jsonl"
    ):
        open_task("easy-vqq")
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read"):
        open_task("none.jsonl")


@pytest.fixture
def write(tmp_path):
    Pillow.new("RGB", (40, 30)).save(tmp_path / "a.png")

    def written(*records):
        path = tmp_path / "my.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        return str(path)

    return written


IMAGE = {"image": "a.png"}


@pytest.mark.parametrize(
    ("record", "kind", "media"),
    [
        ({**IMAGE, "question": "what?", "answer": "a cat"}, "answers", {"image", "text"}),
        ({**IMAGE, "text": "a cat"}, "text", {"image"}),
        ({**IMAGE, "label": "cat"}, "label", {"image"}),
        ({"images": ["a.png", "a.png"], "text": "alike", "label": "yes"}, "label", {"image", "several images", "text"}),
        ({"text": "fine", "label": "good"}, "label", {"text"}),
        ({**IMAGE, "text": "the cat", "box": [1, 2, 30, 20]}, "box", {"image", "text"}),
        ({**IMAGE, "text": "fine", "score": 2}, "value", {"image", "text"}),
        ({**IMAGE, "text": "why?", "options": ["so", "not so"], "right": 1}, "choice", {"image", "text"}),
        ({"parts": ["Is ", IMAGE, " red?"], "target": "no"}, "text", {"image", "text"}),
    ],
)
def test_the_kind_of_a_file_follows_from_its_records(write, record, kind, media):
    task = open_task(write(record))
    assert (task.kind, task.media, task.default_split, task.support_split) == (kind, media, "all", None)
    assert task.labels == ((record["label"],) if kind == "label" else ())
    assert len(task.examples("all")) == 1


def test_a_file_of_several_kinds_is_an_error_that_names_both(write):
    with pytest.raises(UserError, match=r"kinds of target: label \(.*my\.jsonl:1\), value \(.*my\.jsonl:2\)"):
        open_task(write({**IMAGE, "label": "cat"}, {**IMAGE, "text": "fine", "score": 2}))
    # Questions and texts are both answered in words.
    task = open_task(write({**IMAGE, "question": "what?", "answer": "cat"}, {"parts": ["A ", IMAGE], "target": "cat"}))
    assert task.kind == "answers"


def test_bad_records_of_a_file_are_an_error_or_are_collected(write):
    path = write({**IMAGE, "label": "cat"}, {"image": "none.png", "label": "dog"})
    with pytest.raises(DataError, match=r"1 bad record"):
        open_task(path)
    problems = []
    assert [example.target for example in open_task(path, problems=problems).examples("all")] == [Label("cat")]
    assert [problem.line for problem in problems] == [2]


def test_predictions_of_a_file_are_read_and_scored(write, tmp_path):
    task = open_task(write(*({**IMAGE, "text": "?", "options": ["a", "b"], "right": n % 2} for n in range(4))))
    examples = task.examples("all")
    assert [example.target for example in examples] == [Choice(0), Choice(1)] * 2
    made = [Prediction(example.id, 0, (0, 1), (0.75, 0.25)) for example in examples]
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(prediction.as_record()) + "\n" for prediction in made))
    assert task.read_predictions(path, examples) == made
    assert task.score(examples, made)["accuracy"].value == 0.5
    # A part of the file can be scored, where a model answered a part.
    with pytest.raises(DataError, match="no record for 2 of 4 predictions: 3, 4"):
        task.read_predictions(path, examples[:2])
    path.write_text('{"name": "x"}')
    with pytest.raises(DataError, match=r"predictions\.jsonl: not a file of predictions"):
        task.read_predictions(path, examples)


def test_answers_keep_their_scores(write):
    (example,) = open_task(write({**IMAGE, "question": "what?", "answers": ["a cat", "cat"]})).examples("all")
    assert example.target == Answers({"a cat": 1.0, "cat": 1.0})
