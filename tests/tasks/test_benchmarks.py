"""Each benchmark in its official format, a handful of records, scored by hand."""

import json
import math
import pickle

import numpy as np
import pytest

from tests.tasks.official import (
    lines,
    meme,
    mvsa_folder,
    nlvr2_record,
    r2r_folder,
    refcoco_folder,
    sentiment_record,
    snli_ve_record,
    vcr_record,
    vqa_folder,
    write,
)
from vislang.boxes import Box
from vislang.data.problems import DataError
from vislang.errors import UserError
from vislang.example import Choice, Label, Prediction
from vislang.metrics.classification import area_under_curve
from vislang.metrics.regression import sentiment
from vislang.metrics.vqa import clean, soft_scores, vqa_accuracy
from vislang.tasks.benchmarks import BENCHMARKS
from vislang.tasks.benchmarks.hateful_memes import HatefulMemes, hateful
from vislang.tasks.benchmarks.mvsa import MVSA, agreed
from vislang.tasks.benchmarks.nlvr2 import NLVR2
from vislang.tasks.benchmarks.r2r import R2R
from vislang.tasks.benchmarks.refcoco import RefCOCO
from vislang.tasks.benchmarks.sentiment import Sentiment
from vislang.tasks.benchmarks.snli_ve import SNLIVE
from vislang.tasks.benchmarks.vcr import VCR
from vislang.tasks.benchmarks.vqa import VQA


def scored(task, split, path):
    """The values of a file of predictions."""
    examples = task.examples(split)
    return values(task.score(examples, task.read_predictions(path, examples)))


def values(figures):
    return {name: figure.value for name, figure in figures.items()}


def predictions(answers):
    return [Prediction(name, answer) for name, answer in answers.items()]


def must_come_back(task, examples, made, folder):
    """The official file, and our own, have the score of the predictions that they were written from."""
    expected = values(task.score(examples, made))
    name, content = task.submission(examples, made)
    write(folder / name, content)
    assert values(task.score(examples, task.read_predictions(folder / name, examples))) == pytest.approx(expected)
    write(folder / "predictions.jsonl", lines(prediction.as_record() for prediction in made[::-1]))
    ours = task.read_predictions(folder / "predictions.jsonl", examples)
    assert ours == made
    assert values(task.score(examples, ours)) == expected


# ---------------------------------------------------------------------------------------------------------- VQA


@pytest.mark.parametrize(
    ("answer", "cleaned"),
    [
        ("The dog.", "dog"),
        ("two", "2"),
        ("dont know", "don't know"),
        ("yes, sir", "yes sir"),
        ("red/blue", "red blue"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("a man\n", "man"),
        ("couldn'tve", "couldn't've"),
    ],
)
def test_answers_are_cleaned_up_as_officially(answer, cleaned):
    assert clean(answer) == cleaned


def test_vqa_accuracy_leaves_one_person_out_at_a_time():
    """Three of ten gave it: for those three, two others did (2/3); for the other seven, three did (1)."""
    assert vqa_accuracy("red", ["red"] * 3 + ["blue"] * 7) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("red", ["red"] + ["blue"] * 9) == pytest.approx(9 * (1 / 3) / 10)
    assert vqa_accuracy("red", ["blue"] * 10) == 0
    # Where all ten agree, nothing is cleaned up on either side.
    assert vqa_accuracy("The dog", ["dog"] * 10) == 0
    assert soft_scores(["red"] * 2 + ["a red"] + ["blue"] * 7) == {"red": 0.9, "blue": 1.0}


def test_vqa(tmp_path):
    benchmark = VQA(vqa_folder(tmp_path))
    examples = benchmark.examples("val2014")
    assert [e.media[0].name.rpartition("/")[2] for e in examples] == ["COCO_val2014_000000000009.jpg"] * 2
    assert examples[0].target.scores == {"dog": 0.9, "cat": 1.0}
    assert (examples[0].text, examples[0].group, examples[0].id) == ("what is it?", "9", "90")
    results = tmp_path / "results.json"
    write(results, [{"question_id": 90, "answer": "the dog"}, {"question_id": 91, "answer": "no"}])
    found = scored(benchmark, "val2014", results)
    assert found == pytest.approx({"accuracy": (0.9 + 0) / 2, "accuracy_other": 0.9, "accuracy_yes_no": 0})
    must_come_back(benchmark, examples, predictions({"90": "a cat", "91": "yes"}), tmp_path)
    # A model that gives no answer is not right where the answer is "none".
    assert values(benchmark.score(examples, predictions({"90": None, "91": "yes"})))["accuracy"] == 0.5


def test_questions_of_a_test_split_have_no_target(tmp_path):
    vqa_folder(tmp_path)
    question = {"image_id": 9, "question": "what?", "question_id": 92}
    path = tmp_path / "v2_OpenEnded_mscoco_test2015_questions.json"
    write(path, {"data_subtype": "test2015", "questions": [question]})
    benchmark = VQA(tmp_path)
    assert (benchmark.splits, benchmark.default_split) == (("test2015", "val2014"), "val2014")
    benchmark.examples("val")
    (example,) = benchmark.examples("test")
    assert example.target is None
    with pytest.raises(DataError, match=r"test2015_questions\.json, 92: has no label"):
        benchmark.score([example], predictions({"92": "yes"}))
    (tmp_path / "v2_mscoco_val2014_annotations.json").unlink()
    with pytest.raises(DataError, match=r"no file \*val2014\*annotations\.json"):
        VQA(tmp_path).examples("val2014")


# ---------------------------------------------------------------------------------------------------------- VCR


def test_vcr(tmp_path):
    records = [vcr_record(n, answer_label=a, rationale_label=r) for n, a, r in ((0, 0, 1), (1, 2, 3))]
    write(tmp_path / "val.jsonl", lines(records))
    benchmark = VCR(tmp_path)
    examples = benchmark.examples("val")
    assert [e.id for e in examples] == ["val-0 answer", "val-0 rationale", "val-1 answer", "val-1 rationale"]
    answer, rationale = examples[:2]
    assert answer.with_choice(3).parts[1:] == ("What does Casey give dog ?", "Casey and dog")
    assert rationale.with_choice(1).parts[1:] == ("What does Casey give dog ? a bone", "so")
    assert rationale.target == Choice(1)
    assert benchmark.together(answer) == benchmark.together(rationale) == "val-0"
    made = predictions({"val-0 answer": 0, "val-0 rationale": 1, "val-1 answer": 2, "val-1 rationale": 0})
    assert values(benchmark.score(examples, made)) == {"q_to_a": 1.0, "qa_to_r": 0.5, "q_to_ar": 0.5}
    must_come_back(benchmark, examples, made, tmp_path)
    sure = [Prediction(p.id, p.answer, (0, 1, 2, 3), tuple(np.eye(4)[p.answer].tolist())) for p in made]
    must_come_back(benchmark, examples, sure, tmp_path)

    # The leaderboard's file: reasons are read for the right answer, whichever was chosen.
    header = ["annot_id", *(f"answer_{n}" for n in range(4))]
    header += [f"rationale_conditioned_on_a{a}_{r}" for a in range(4) for r in range(4)]

    def row(name, chosen, by_answer):
        answers = [float(n == chosen) for n in range(4)]
        return [name, *answers, *[float(by_answer[a] == r) for a in range(4) for r in range(4)]]

    rows = [row("val-0", 1, [1, 0, 0, 0]), row("val-1", 2, [0, 0, 3, 0])]
    write(tmp_path / "sent.csv", "\n".join(",".join(map(str, r)) for r in [header, *rows]))
    assert scored(benchmark, "val", tmp_path / "sent.csv") == {"q_to_a": 0.5, "qa_to_r": 1.0, "q_to_ar": 0.5}
    write(tmp_path / "sent.csv", "\n".join(",".join(map(str, r)) for r in [header, *rows, row("val-2", 0, [0] * 4)]))
    with pytest.raises(DataError, match="no record for 1 of 5 predictions: val-2 answer"):
        scored(benchmark, "val", tmp_path / "sent.csv")


def test_vcr_without_labels_asks_for_the_reasons_of_every_answer(tmp_path):
    """The leaderboard wants all four, since it keeps the right answer to itself."""
    write(tmp_path / "test.jsonl", lines([vcr_record(0)]))
    benchmark = VCR(tmp_path)
    examples = benchmark.examples("test")
    assert [e.id for e in examples] == ["val-0 answer", *(f"val-0 rationale {n}" for n in range(4))]
    assert examples[3].text == "What does Casey give dog ? food"
    assert {e.target for e in examples} == {None}
    made = [Prediction(e.id, n % 4) for n, e in enumerate(examples)]
    name, content = benchmark.submission(examples, made)
    header, row = (line.split(",") for line in content.splitlines())
    assert len(header) == 21
    found = {column for column, value in zip(header, row, strict=True) if value == "1.0"}
    assert found == {"answer_0", *(f"rationale_conditioned_on_a{n}_{(n + 1) % 4}" for n in range(4))}
    write(tmp_path / name, content)
    assert [p.answer for p in benchmark.read_predictions(tmp_path / name, examples)] == [0, 1, 2, 3, 0]
    with pytest.raises(DataError, match="has no label"):
        benchmark.score(examples, made)


# -------------------------------------------------------------------------------------------------- RefCOCO


def test_referring_expressions(tmp_path):
    refcoco_folder(tmp_path)
    benchmark = RefCOCO(tmp_path)
    assert (benchmark.splits, benchmark.default_split) == (("test", "testA", "val"), "val")
    examples = benchmark.examples("test")
    assert [e.id for e in examples] == ["11", "12"]
    assert examples[0].target == Box(10, 10, 30, 20)
    assert [e.id for e in benchmark.examples("refs(unc).p val")] == ["13"]
    # (10, 10, 24, 20): 140 of 200 shared, 0.7; (25, 10, 45, 20): 50 shared of 350.
    write(tmp_path / "sent.json", [{"sent_id": 11, "box": [10, 10, 14, 10]}, {"sent_id": 12, "box": [25, 10, 20, 10]}])
    assert scored(benchmark, "test", tmp_path / "sent.json") == {"accuracy": 0.5}
    candidates = (Box(0, 0, 5, 5), Box(10, 10, 30, 20))
    made = [Prediction("11", candidates[0], candidates, (0.9, 0.1)), Prediction("12", Box(0, 0, 1, 1))]
    assert values(benchmark.score(examples, made)) == {"accuracy": 0, "upper_bound": 0.5}
    must_come_back(benchmark, examples, predictions({"11": Box(10, 10, 24, 20), "12": Box(0, 0, 1, 1)}), tmp_path)
    with pytest.raises(DataError, match=r"no split 'train'\. The splits are test, testA, val"):
        benchmark.examples("train")
    # Several sets of references may share a folder; then a split is called by both.
    (tmp_path / "refs(google).p").write_bytes((tmp_path / "refs(unc).p").read_bytes())
    both = RefCOCO(tmp_path)
    assert both.splits[3:] == ("refs(unc).p test", "refs(unc).p testA", "refs(unc).p val")
    assert both.default_split == "refs(google).p val"
    assert [e.id for e in both.examples("refs(unc).p val")] == ["13"]


def test_references_that_would_run_code_are_an_error(tmp_path):
    class Hostile:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "run"),)

    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([Hostile()]))
    write(tmp_path / "instances.json", {"images": [], "annotations": [{"id": 5, "bbox": [1, 1, 2, 1]}]})
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p: not a pickle of plain values"):
        RefCOCO(tmp_path)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------- NLVR2


def test_nlvr2(tmp_path):
    records = [nlvr2_record(0, 0, "True"), nlvr2_record(1, 0, "False"), nlvr2_record(0, 1, "True")]
    write(tmp_path / "dev.json", lines(records))
    benchmark = NLVR2(tmp_path)
    examples = benchmark.examples("dev")
    assert [image.name.rpartition("/")[2] for image in examples[0].media] == ["dev-1-0-img0.png", "dev-1-0-img1.png"]
    write(tmp_path / "sent.csv", "dev-1-0-0,True\ndev-1-1-0,true\ndev-1-0-1,True\n")
    # Sentence 0 is wrong on one of its two pairs, sentence 1 is right on its only one.
    assert scored(benchmark, "dev", tmp_path / "sent.csv") == pytest.approx({"accuracy": 2 / 3, "consistency": 0.5})
    made = predictions({"dev-1-0-0": "True", "dev-1-1-0": "False", "dev-1-0-1": "False"})
    must_come_back(benchmark, examples, made, tmp_path)
    write(tmp_path / "sent.csv", "dev-1-0-0,perhaps\n")
    with pytest.raises(DataError, match=r"sent\.csv, record 1: 'Perhaps' is none of True, False"):
        benchmark.read_predictions(tmp_path / "sent.csv", examples)


# -------------------------------------------------------------------------------------- entailment and memes


def test_visual_entailment(tmp_path):
    write(tmp_path / "snli_ve_dev.jsonl", lines([snli_ve_record(1, "entailment"), snli_ve_record(2, "neutral")]))
    benchmark = SNLIVE(tmp_path)
    examples = benchmark.examples("dev")
    assert examples[0].target == Label("entailment")
    records = [{"pairID": f"{n}.jpg#0r1", "prediction": "neutral"} for n in (1, 2)]
    write(tmp_path / "sent.jsonl", lines(records))
    assert scored(benchmark, "dev", tmp_path / "sent.jsonl") == {"accuracy": 0.5}
    must_come_back(benchmark, examples, predictions({f"{n}.jpg#0r1": "entailment" for n in (1, 2)}), tmp_path)
    write(tmp_path / "sent.jsonl", lines([{"pairID": "1.jpg#0r1", "prediction": "entails"}, *records]))
    with pytest.raises(DataError, match=r"record 1: 'entails' is none of entailment, neutral, contradiction"):
        scored(benchmark, "dev", tmp_path / "sent.jsonl")


def test_hateful_memes(tmp_path):
    labels = {1: 1, 2: 0, 3: 1, 4: 0}
    records = [meme(n, label, f"img/{n}.png", "words") for n, label in labels.items()]
    write(tmp_path / "dev_seen.jsonl", lines(records))
    benchmark = HatefulMemes(tmp_path)
    examples = benchmark.examples("dev")
    write(tmp_path / "sent.csv", "id,proba,label\n1,0.9,1\n2,0.4,0\n3,0.3,0\n4,0.3,0\n")
    # Pairs of a positive and a negative: 0.9 beats both, 0.3 loses to 0.4 and ties with 0.3: 2.5 of 4.
    assert scored(benchmark, "dev_seen", tmp_path / "sent.csv") == pytest.approx({"auroc": 2.5 / 4, "accuracy": 0.75})
    assert math.isnan(area_under_curve([0.1, 0.2], [True, True]))
    made = [
        Prediction(str(n), "01"[p > 0.5], ("0", "1"), (1 - p, p)) for n, p in ((1, 0.75), (2, 0.5), (3, 0.25), (4, 0))
    ]
    must_come_back(benchmark, examples, made, tmp_path)


def test_scores_of_any_kind_become_a_probability_of_being_hateful():
    assert hateful(Prediction("1", "0", ("0", "1"), (-1.0, -1.0 - math.log(3)), "log_likelihood")) == pytest.approx(
        0.25
    )
    assert hateful(Prediction("1", "1", ("0", "1"), (-2000.0, -1.0), "log_likelihood")) == 1
    assert hateful(Prediction("1", "1")) == 1


# ------------------------------------------------------------------------------------------------ sentiment


@pytest.mark.parametrize(
    ("cells", "label"),
    [
        (["positive,negative"], None),
        (["neutral,positive"], "positive"),
        (["negative,neutral"], "negative"),
        (["neutral,neutral"], "neutral"),
        (["positive,positive", "positive,neutral", "negative,positive"], "positive"),
        (["positive,positive", "neutral,neutral", "negative,negative"], None),
    ],
)
def test_annotators_agree_or_a_record_is_left_out(cells, label):
    assert agreed(cells) == label


def test_mvsa(tmp_path):
    mvsa_folder(tmp_path, {n: "positive,positive" if n % 2 else "neutral,negative" for n in range(1, 21)})
    benchmark = MVSA(tmp_path)
    assert [len(benchmark.examples(split)) for split in benchmark.splits] == [16, 2, 2]
    examples = benchmark.examples("test")
    assert [e.id for e in examples] == ["10", "20"]
    assert {e.target.name for e in examples} == {"negative"}
    write(tmp_path / "sent.jsonl", lines([{"id": 10, "label": "negative"}, {"id": 20, "label": "positive"}]))
    found = scored(benchmark, "test", tmp_path / "sent.jsonl")
    # Negative: one of two found, none wrong: 2 * 1 / (1 + 2). Positive: only predicted, 0; it counts for the macro F1.
    assert found == pytest.approx({"accuracy": 0.5, "weighted_f1": 2 / 3, "macro_f1": 1 / 3})
    without = benchmark.score(examples, predictions({"10": "negative", "20": None}))
    assert values(without) == pytest.approx({"accuracy": 0.5, "weighted_f1": 2 / 3, "macro_f1": 2 / 3})
    must_come_back(benchmark, examples, predictions({"10": "neutral", "20": "negative"}), tmp_path)


def test_sentiment_in_numbers(tmp_path):
    wanted = {"a": -2.0, "b": 0.0, "c": 1.4, "d": 3.0}
    records = [sentiment_record(n, score) for n, score in wanted.items()]
    write(tmp_path / "test.jsonl", lines(records))
    benchmark = Sentiment(tmp_path)
    examples = benchmark.examples("test")
    numbers = {"a": -1.6, "b": 0.4, "c": -0.6, "d": 4.0}
    write(tmp_path / "sent.jsonl", lines([{"id": n, "score": score} for n, score in numbers.items()]))
    found = scored(benchmark, "test", tmp_path / "sent.jsonl")
    assert found["mae"] == pytest.approx((0.4 + 0.4 + 2.0 + 1.0) / 4)
    # -1.6 rounds to -2, 0.4 to 0, 4.0 is clipped to 3; -0.6 is not 1.
    assert found["accuracy_7"] == 0.75
    # Not negative: b (0.4), c is wrong, a and d right. Without zeros: a, d of a, c, d.
    assert found["accuracy_2_has0"] == 0.75
    assert found["accuracy_2_non0"] == pytest.approx(2 / 3)
    assert tuple(found) == benchmark.metrics
    assert math.isnan(sentiment([1.0, 1.0], [0.0, 2.0])["pearson_r"].value)
    must_come_back(benchmark, examples, predictions({"a": -1.0, "b": 0.5, "c": 2.0, "d": 1.0}), tmp_path)
    without = predictions({"a": None, "b": 0.5, "c": 2.0, "d": 0.5})
    assert values(benchmark.score(examples, without))["answered"] == 0.75


# -------------------------------------------------------------------------------------------------- navigation


def test_navigation_by_ranking_paths(tmp_path):
    benchmark = R2R(r2r_folder(tmp_path))
    examples = benchmark.examples("val")
    first, second, _ = examples
    assert (first.text, first.target) == ("go", Choice(1))
    assert second.target is None  # no candidate ends within 3 m of the goal
    assert [image.name.rpartition("/")[2] for image in first.choices[0].media] == ["s-a.jpg", "s-b.jpg"]
    # The first goes one viewpoint too far, 2 m from the goal: arrived, 8 m walked for 6; the second stays at the start.
    found = values(benchmark.score(examples[:2], predictions({"1_0": 2, "1_1": 0})))
    # Warping costs 2 m for the viewpoint too far; staying costs 0 + 2 + 4 + 6 m. Both over 3 m x 4 viewpoints.
    assert found == pytest.approx(
        {
            "success_rate": 0.5,
            "oracle_success_rate": 0.5,
            "spl": (6 / 8) / 2,
            "navigation_error": (2 + 6) / 2,
            "trajectory_length": (8 + 0) / 2,
            "ndtw": (math.exp(-2 / 12) + math.exp(-12 / 12)) / 2,
            "sdtw": math.exp(-2 / 12) / 2,
        }
    )
    must_come_back(benchmark, examples, predictions({"1_0": 1, "1_1": ("a", "b"), "1_2": ("a", "a")}), tmp_path)
    with pytest.raises(UserError, match="prediction 1_1: 2 is not the index of a choice, from 0 to 1"):
        benchmark.score(examples[:2], predictions({"1_0": 2, "1_1": 2}))
    assert values(benchmark.guesses([], [first])["chance"]) == pytest.approx({"accuracy": 1 / 3})


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_without_the_files_names_what_is_wanted(name, tmp_path):
    with pytest.raises(DataError, match=r"contains no (split|file .*)\. Required files: "):
        BENCHMARKS[name](tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        BENCHMARKS[name](tmp_path / "nothing")


def test_a_bad_record_is_named(tmp_path):
    write(tmp_path / "dev_seen.jsonl", lines([{"id": 1, "img": "a.png", "text": "x"}, {"id": 2, "img": "b.png"}]))
    with pytest.raises(DataError, match=r"dev_seen\.jsonl, record 2: has no \"text\""):
        HatefulMemes(tmp_path).examples("dev_seen")
    write(tmp_path / "dev_seen.jsonl", '{"id": 1, "img": "a.png", "text": "x"}\n{oh')
    with pytest.raises(DataError, match=r"dev_seen\.jsonl:2: not JSON"):
        HatefulMemes(tmp_path).examples("dev_seen")
    # A line ends where a file says so: characters that only look like the end of one belong to its text.
    record = json.dumps({"id": 1, "img": "a.png", "text": "one\u2028two\x85three"}, ensure_ascii=False)
    write(tmp_path / "dev_seen.jsonl", record)
    assert [e.text for e in HatefulMemes(tmp_path).examples("dev_seen")] == ["one\u2028two\x85three"]


@pytest.mark.parametrize("content", [b"\xe9\xe8", b"5", b'{"a": 1}', b"null", b"[" * 100_000])
def test_predictions_that_are_none_are_one_line(tmp_path, content):
    benchmark = R2R(r2r_folder(tmp_path))
    (tmp_path / "sent.json").write_bytes(content)
    with pytest.raises(DataError, match=r"sent\.json.*(not UTF-8|not a list of records|not JSON|record 1)"):
        benchmark.read_predictions(tmp_path / "sent.json", benchmark.examples("val"))


def test_a_path_begins_at_the_start(tmp_path):
    """A path that is only its end has not arrived there."""
    benchmark = R2R(r2r_folder(tmp_path))
    paths = predictions({"1_0": ("d",), "1_1": ("a",), "1_2": ("a",)})
    with pytest.raises(UserError, match="prediction 1_0: the path must start at a"):
        benchmark.score(benchmark.examples("val"), paths)


def test_labels_of_another_task_are_no_memes(tmp_path):
    write(tmp_path / "dev_seen.jsonl", lines([meme(1, 1)]))
    benchmark = HatefulMemes(tmp_path)
    examples = benchmark.examples("dev_seen")
    with pytest.raises(DataError, match="labels 0 and 1, and the model decides among no, yes"):
        benchmark.score(examples, [Prediction("1", "yes", ("no", "yes"), (0.2, 0.8))])
    write(tmp_path / "sent.csv", "id,proba,label\n1,nan,1\n")
    with pytest.raises(DataError, match=r'sent\.csv, record 1: proba is "nan", not a number'):
        benchmark.read_predictions(tmp_path / "sent.csv", examples)


def test_an_answer_that_all_people_give_has_the_highest_soft_score():
    for answers in (["t-shirt"] * 10, ["t-shirt"] * 6 + ["red"] * 4):
        best = max(soft_scores(answers).items(), key=lambda pair: pair[1])[0]
        assert vqa_accuracy(best, answers) == 1


def memes(folder, *splits):
    for split in splits:
        write(folder / f"{split}.jsonl", lines(meme(n, n % 2) for n in range(8)))
    return HatefulMemes(folder)


def test_a_split_that_does_not_exist_names_those_that_do(tmp_path):
    task = memes(tmp_path, "dev_seen", "dev_unseen", "train")
    assert (task.default_split, task.support_split) == ("dev_seen", "train")
    for split in ("/tmp/x", "*", "test"):
        with pytest.raises(DataError, match=r"no split '.*'. The splits are dev_seen, dev_unseen, train"):
            task.examples(split)
    with pytest.raises(DataError, match="several splits begin with 'dev'"):
        task.examples("dev")
    assert len(task.examples("tr")) == len(task.support()) == 8


def test_predictions_are_complete_or_nothing_is_scored(tmp_path):
    task = memes(tmp_path, "dev_seen")
    examples = task.examples("dev_seen")
    rows = [f"{n},0.5,1" for n in (6, 7, 7, 20)]
    write(tmp_path / "sent.csv", "\n".join(["id,proba,label", *rows]))
    with pytest.raises(DataError) as error:
        task.read_predictions(tmp_path / "sent.csv", examples)
    assert str(error.value) == (
        f"{tmp_path / 'sent.csv'}: no prediction for 6 of 8 records: 0, 1, 2, 3, 4, ...; "
        "no record for 1 of 4 predictions: 20; several predictions for 1 of 8 records: 7."
    )
    write(tmp_path / "ours.jsonl", lines([{"id": "6", "answer": "1"}, {"id": "7", "answer": True}]))
    with pytest.raises(DataError, match=r"ours\.jsonl, record 2: True is not an answer"):
        task.read_predictions(tmp_path / "ours.jsonl", examples[6:])
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        task.read_predictions(tmp_path / "none.csv", examples)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_words_for_every_label(name):
    """Each label can be written by a generating model and fits a caption; each question fills in the text."""
    benchmark = BENCHMARKS[name]
    wording = benchmark.wording
    assert set(wording.labels) <= set(benchmark.labels)
    # The labels of ImageNet are those in its folder.
    assert bool(benchmark.labels) == (benchmark.kind == "label" and name != "imagenet")
    for label in benchmark.labels:
        caption = wording.captions.get(label, wording.captions.get(""))
        assert "{text}" in caption
        assert wording.question.format(text="a dog")


def test_what_is_scored_together_is_drawn_together(tmp_path):
    records = [
        {"identifier": f"dev-{group}-{pair}-0", "sentence": "x", "label": "True", "left_url": ""}
        for group in range(5)
        for pair in range(2)
    ]
    write(tmp_path / "dev.json", lines(records))
    benchmark = NLVR2(tmp_path)
    examples = benchmark.examples("dev")
    for limit, seed in ((5, 0), (4, 1), (1, 2)):
        kept = benchmark.subset(examples, limit, seed)
        assert len(kept) == max(2, limit - limit % 2)
        assert {e.id.rsplit("-", 2)[0] for e in kept} == {benchmark.together(e)[:-2] for e in kept}
        assert len({benchmark.together(e) for e in kept}) == len(kept) / 2
    assert benchmark.subset(examples, 0, 0) == examples
