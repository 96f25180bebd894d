"""Each benchmark in its official format, a handful of records, scored by hand."""

import json
import math
import pickle

import pytest

from vislang.case import Choice, Decision, Label, Place
from vislang.commands.evaluate import drawn
from vislang.data.jsonl import DataError
from vislang.tasks.benchmarks import BENCHMARKS
from vislang.tasks.entailment import SNLIVE
from vislang.tasks.memes import HatefulMemes, area_under_curve
from vislang.tasks.navigation import R2R
from vislang.tasks.nlvr2 import NLVR2
from vislang.tasks.referring import Referring
from vislang.tasks.sentiment import MVSA, SentimentNumbers, agreed, sentiment_scores
from vislang.tasks.vcr import VCR
from vislang.tasks.vqa import VQA, clean, soft_scores, vqa_accuracy


def value(figure) -> float:
    return getattr(figure, "value", figure)


def write(path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def lines(records) -> str:
    return "\n".join(json.dumps(record) for record in records) + "\n"


# ---------------------------------------------------------------------------------------------------------- VQA


@pytest.mark.parametrize(
    ("said", "cleaned"),
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
def test_answers_are_cleaned_up_as_officially(said, cleaned):
    assert clean(said) == cleaned


def test_vqa_accuracy_leaves_one_person_out_at_a_time():
    """Three of ten said it: for those three, two others did (2/3); for the other seven, three did (1)."""
    assert vqa_accuracy("red", ["red"] * 3 + ["blue"] * 7) == pytest.approx((3 * 2 / 3 + 7) / 10)
    assert vqa_accuracy("red", ["red"] + ["blue"] * 9) == pytest.approx(9 * (1 / 3) / 10)
    assert vqa_accuracy("red", ["blue"] * 10) == 0
    # Where all ten say the same, nothing is cleaned up on either side.
    assert vqa_accuracy("The dog", ["dog"] * 10) == 0
    assert soft_scores(["red"] * 2 + ["a red"] + ["blue"] * 7) == {"red": 0.9, "blue": 1.0}


def vqa_folder(folder):
    write(
        folder / "v2_OpenEnded_mscoco_val2014_questions.json",
        {
            "data_subtype": "val2014",
            "questions": [
                {"image_id": 9, "question": "what is it?", "question_id": 90},
                {"image_id": 9, "question": "is it red?", "question_id": 91},
            ],
        },
    )

    def annotation(number, kind, answers):
        given = [{"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(answers, start=1)]
        return {"question_id": number, "image_id": 9, "answer_type": kind, "question_type": "is", "answers": given}

    annotations = [annotation(90, "other", ["a dog"] * 3 + ["cat"] * 7), annotation(91, "yes/no", ["yes"] * 10)]
    write(folder / "v2_mscoco_val2014_annotations.json", {"annotations": annotations})
    return folder


def test_vqa(tmp_path):
    benchmark = VQA(vqa_folder(tmp_path), "val2014")
    assert [case.images[0].name[-len("COCO_val2014_000000000009.jpg") :] for case in benchmark.cases] == [
        "COCO_val2014_000000000009.jpg"
    ] * 2
    assert benchmark.cases[0].target.scores == {"dog": 0.9, "cat": 1.0}
    results = tmp_path / "results.json"
    write(results, [{"question_id": 90, "answer": "the dog"}, {"question_id": 91, "answer": "no"}])
    scores = benchmark.score(benchmark.read_predictions(results))
    assert scores["accuracy"] == pytest.approx((0.9 + 0) / 2)
    assert scores["accuracy, other"] == pytest.approx(0.9)
    write(results, [{"question_id": 90, "answer": "dog"}])
    with pytest.raises(DataError, match="1 of 2 records have no prediction: 91"):
        benchmark.score(benchmark.read_predictions(results))


# ---------------------------------------------------------------------------------------------------------- VCR


def test_vcr(tmp_path):
    def record(number, answer, rationale):
        return {
            "annot_id": f"val-{number}",
            "img_fn": "movie/a.jpg",
            "objects": ["person", "dog"],
            "question": ["What", "does", [0], "give", [1], "?"],
            "answer_choices": [["a", "bone"], ["[gr]"], ["food"], [[0, 1]]],
            "answer_label": answer,
            "rationale_choices": [["because"], ["so"], ["it"], ["is"]],
            "rationale_label": rationale,
        }

    write(tmp_path / "val.jsonl", lines([record(0, 0, 1), record(1, 2, 3)]))
    benchmark = VCR(tmp_path, "val")
    assert [case.id for case in benchmark.cases] == [
        "val-0 answer",
        "val-0 rationale",
        "val-1 answer",
        "val-1 rationale",
    ]
    answer, rationale = benchmark.cases[:2]
    assert answer.options[3].parts[1:] == ("What does Casey give dog ?", "Casey and dog")
    assert rationale.options[1].parts[1:] == ("What does Casey give dog ? a bone", "so")
    assert rationale.target == Choice(1)
    right = {"val-0 answer": 0, "val-0 rationale": 1, "val-1 answer": 2, "val-1 rationale": 0}
    scores = benchmark.score({name: Decision(best) for name, best in right.items()})
    assert {name: value(figure) for name, figure in scores.items()} == {"Q->A": 1.0, "QA->R": 0.5, "Q->AR": 0.5}

    # The leaderboard's file: reasons are read for the right answer, whichever was chosen.
    header = ["annot_id", *(f"answer_{n}" for n in range(4))]
    header += [f"rationale_conditioned_on_a{a}_{r}" for a in range(4) for r in range(4)]

    def row(name, chosen, by_answer):
        answers = [float(n == chosen) for n in range(4)]
        return [name, *answers, *[float(by_answer[a] == r) for a in range(4) for r in range(4)]]

    rows = [row("val-0", 1, [1, 0, 0, 0]), row("val-1", 2, [0, 0, 3, 0])]
    write(tmp_path / "sent.csv", "\n".join(",".join(map(str, r)) for r in [header, *rows]))
    scores = benchmark.score(benchmark.read_predictions(tmp_path / "sent.csv"))
    assert {name: value(figure) for name, figure in scores.items()} == {"Q->A": 0.5, "QA->R": 1.0, "Q->AR": 0.5}


# -------------------------------------------------------------------------------------------------- RefCOCO


def test_referring_expressions(tmp_path):
    references = [
        {
            "ref_id": 1,
            "ann_id": 5,
            "image_id": 7,
            "split": "testA",
            "sentences": [{"sent_id": 11, "sent": "left cup"}, {"sent_id": 12, "sent": "the cup"}],
        },
        {"ref_id": 2, "ann_id": 5, "image_id": 7, "split": "val", "sentences": [{"sent_id": 13, "sent": "cup"}]},
    ]
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(references, protocol=2))
    write(
        tmp_path / "instances.json",
        {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": [{"id": 5, "bbox": [10, 10, 20, 10]}]},
    )
    benchmark = Referring(tmp_path, "test")
    assert [case.id for case in benchmark.cases] == ["11", "12"]
    assert benchmark.cases[0].target == Place(10, 10, 30, 20)
    # (10, 10, 24, 20): 140 of 200 shared, 0.7; (25, 10, 45, 20): 50 shared of 350.
    write(tmp_path / "said.json", [{"sent_id": 11, "box": [10, 10, 14, 10]}, {"sent_id": 12, "box": [25, 10, 20, 10]}])
    scores = benchmark.score(benchmark.read_predictions(tmp_path / "said.json"))
    assert value(scores["accuracy"]) == 0.5
    candidates = (Place(0, 0, 5, 5), Place(10, 10, 30, 20))
    scores = benchmark.score({"11": Decision(candidates[0], candidates, (0.9, 0.1)), "12": Decision(Place(0, 0, 1, 1))})
    assert value(scores["accuracy"]) == 0
    assert value(scores["upper bound"]) == 0.5
    with pytest.raises(DataError, match="nothing of the split train; there are testA, val"):
        Referring(tmp_path, "train")


def test_references_that_would_run_code_are_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "run"),)

    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps([Hostile()]))
    write(tmp_path / "instances.json", {"images": [], "annotations": [{"id": 5, "bbox": [1, 1, 2, 1]}]})
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p: cannot be read as a pickle of plain values"):
        Referring(tmp_path, "val")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------- NLVR2


def test_nlvr2(tmp_path):
    def record(pair, sentence, label):
        return {"identifier": f"dev-1-{pair}-{sentence}", "sentence": "two dogs", "label": label, "left_url": "x"}

    records = [record(0, 0, "True"), record(1, 0, "False"), record(0, 1, "True")]
    write(tmp_path / "dev.json", lines(records))
    benchmark = NLVR2(tmp_path, "dev")
    assert [image.name.rpartition("/")[2] for image in benchmark.cases[0].images] == [
        "dev-1-0-img0.png",
        "dev-1-0-img1.png",
    ]
    write(tmp_path / "said.csv", "dev-1-0-0,True\ndev-1-1-0,true\ndev-1-0-1,True\n")
    scores = benchmark.score(benchmark.read_predictions(tmp_path / "said.csv"))
    # Sentence 0 is wrong on one of its two pairs, sentence 1 is right on its only one.
    assert value(scores["accuracy"]) == pytest.approx(2 / 3)
    assert value(scores["consistency"]) == 0.5
    write(tmp_path / "said.csv", "dev-1-0-0,perhaps\n")
    with pytest.raises(DataError, match=r"said\.csv, record 1: 'perhaps' is neither True nor False"):
        benchmark.read_predictions(tmp_path / "said.csv")


# -------------------------------------------------------------------------------------- entailment and memes


def test_visual_entailment(tmp_path):
    def record(number, label):
        return {"pairID": f"{number}.jpg#0r1", "Flickr30K_ID": number, "sentence2": "a dog", "gold_label": label}

    write(tmp_path / "snli_ve_dev.jsonl", lines([record(1, "entailment"), record(2, "neutral")]))
    benchmark = SNLIVE(tmp_path, "dev")
    assert benchmark.cases[0].target == Label("entailment")
    said = [{"pairID": f"{n}.jpg#0r1", "prediction": "neutral"} for n in (1, 2)]
    write(tmp_path / "said.jsonl", lines(said))
    assert value(benchmark.score(benchmark.read_predictions(tmp_path / "said.jsonl"))["accuracy"]) == 0.5


def test_hateful_memes(tmp_path):
    labels = {1: 1, 2: 0, 3: 1, 4: 0}
    records = [{"id": n, "img": f"img/{n}.png", "label": label, "text": "words"} for n, label in labels.items()]
    write(tmp_path / "dev_seen.jsonl", lines(records))
    benchmark = HatefulMemes(tmp_path, "dev_seen")
    write(tmp_path / "said.csv", "id,proba,label\n1,0.9,1\n2,0.4,0\n3,0.3,0\n4,0.3,0\n")
    scores = benchmark.score(benchmark.read_predictions(tmp_path / "said.csv"))
    # Pairs of a positive and a negative: 0.9 beats both, 0.3 loses to 0.4 and ties with 0.3: 2.5 of 4.
    assert scores["AUROC"] == pytest.approx(2.5 / 4)
    assert value(scores["accuracy"]) == 0.75
    assert math.isnan(area_under_curve([0.1, 0.2], [True, True]))


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
    rows = [f"{n}\t{'positive,positive' if n % 2 else 'neutral,negative'}" for n in range(1, 21)]
    write(tmp_path / "labelResultAll.txt", "ID\ttext,image\n" + "\n".join(rows) + "\n")
    for number in range(1, 21):
        write(tmp_path / "data" / f"{number}.txt", "a fine day")
    assert [len(MVSA(tmp_path, split).cases) for split in ("train", "val", "test")] == [16, 2, 2]
    benchmark = MVSA(tmp_path, "test")
    assert [case.id for case in benchmark.cases] == ["10", "20"]
    assert {case.target.name for case in benchmark.cases} == {"negative"}
    write(tmp_path / "said.jsonl", lines([{"id": 10, "label": "negative"}, {"id": 20, "label": "positive"}]))
    scores = benchmark.score(benchmark.read_predictions(tmp_path / "said.jsonl"))
    assert value(scores["accuracy"]) == 0.5
    # One of two found, nothing wrongly called negative: 2 * 1 / (1 + 2).
    assert scores["macro F1"] == pytest.approx(2 / 3)


def test_sentiment_in_numbers(tmp_path):
    wanted = {"a": -2.0, "b": 0.0, "c": 1.4, "d": 3.0}
    records = [{"id": n, "image": f"{n}.jpg", "text": "so", "score": score} for n, score in wanted.items()]
    write(tmp_path / "test.jsonl", lines(records))
    benchmark = SentimentNumbers(tmp_path, "test")
    said = {"a": -1.6, "b": 0.4, "c": -0.6, "d": 4.0}
    write(tmp_path / "said.jsonl", lines([{"id": n, "score": score} for n, score in said.items()]))
    scores = benchmark.score(benchmark.read_predictions(tmp_path / "said.jsonl"))
    assert scores["MAE"] == pytest.approx((0.4 + 0.4 + 2.0 + 1.0) / 4)
    # -1.6 rounds to -2, 0.4 to 0, 4.0 is clipped to 3; -0.6 is not 1.
    assert value(scores["accuracy, 7 classes"]) == 0.75
    # Not negative: b (0.4), c is wrong, a and d right. Without zeros: a, d of a, c, d.
    assert value(scores["accuracy, negative or not"]) == 0.75
    assert value(scores["accuracy, negative or positive"]) == pytest.approx(2 / 3)
    assert math.isnan(sentiment_scores([1.0, 1.0], [0.0, 2.0])["Pearson r"])


# -------------------------------------------------------------------------------------------------- navigation


def r2r_folder(folder):
    """Five viewpoints in a row, 2 m apart, and one that is not included."""
    views = "abcdex"

    def place(number):
        pose = [0.0] * 16
        pose[3] = 2.0 * number
        seen = [abs(number - other) == 1 for other in range(len(views))]
        return {"image_id": views[number], "included": views[number] != "x", "pose": pose, "unobstructed": seen}

    write(folder / "connectivity" / "s_connectivity.json", [place(n) for n in range(len(views))])
    record = {
        "scan": "s",
        "path_id": 1,
        "path": list("abcd"),
        "heading": 0,
        "distance": 6,
        "instructions": ["go", "walk"],
    }
    write(folder / "R2R_val.json", [record])
    beams = [
        {"instr_id": "1_0", "ranked_paths": [["a", "b"], ["a", "b", "c", "d"], ["a", "b", "c", "d", "e"]]},
        {"instr_id": "1_1", "ranked_paths": [["a"], ["a", "b"]]},
    ]
    write(folder / "beams_val.json", beams)
    return folder


def test_navigation_by_ranking_paths(tmp_path):
    benchmark = R2R(r2r_folder(tmp_path), "val")
    first, second = benchmark.cases
    assert first.target == Choice(1)
    assert second.target is None  # no candidate ends within 3 m of the goal
    assert [image.name.rpartition("/")[2] for image in first.options[0].media] == ["s-a.jpg", "s-b.jpg"]
    # The first goes one viewpoint too far, 2 m from the goal: arrived, 8 m walked for 6; the second stays at the start.
    scores = benchmark.score({"1_0": Decision(2, (0, 1, 2)), "1_1": Decision(0, (0, 1))})
    assert value(scores["SR"]) == 0.5
    assert value(scores["OSR"]) == 0.5
    assert scores["SPL"] == pytest.approx((6 / 8) / 2)
    assert scores["NE"] == pytest.approx((2 + 6) / 2)
    assert scores["TL"] == pytest.approx((8 + 0) / 2)
    # Warping costs 2 m for the viewpoint too far; staying costs 0 + 2 + 4 + 6 m. Both over 3 m x 4 viewpoints.
    assert scores["nDTW"] == pytest.approx((math.exp(-2 / 12) + math.exp(-12 / 12)) / 2)
    assert scores["SDTW"] == pytest.approx(math.exp(-2 / 12) / 2)
    steps = [[view, 0.0, 0.0] for view in "abbcd"]
    write(
        tmp_path / "said.json",
        [{"instr_id": "1_0", "trajectory": steps}, {"instr_id": "1_1", "trajectory": [["a", 0.0, 0.0]]}],
    )
    scores = benchmark.score(benchmark.read_predictions(tmp_path / "said.json"))
    assert scores["SPL"] == 0.5
    assert scores["TL"] == 3


# ---------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_without_the_files_names_what_is_wanted(name, tmp_path):
    with pytest.raises(DataError, match=r"no file|cannot be read"):
        BENCHMARKS[name](tmp_path, "val")
    with pytest.raises(DataError, match="no such folder"):
        BENCHMARKS[name](tmp_path / "nothing", "val")


def test_a_bad_record_is_named(tmp_path):
    write(tmp_path / "dev_seen.jsonl", lines([{"id": 1, "img": "a.png", "text": "x"}, {"id": 2, "img": "b.png"}]))
    with pytest.raises(DataError, match=r"dev_seen\.jsonl, record 2: has no 'text'"):
        HatefulMemes(tmp_path, "dev_seen")
    write(tmp_path / "dev_seen.jsonl", '{"id": 1, "img": "a.png", "text": "x"}\n{oh')
    with pytest.raises(DataError, match=r"dev_seen\.jsonl:2: not JSON"):
        HatefulMemes(tmp_path, "dev_seen")


@pytest.mark.parametrize("content", [b"\xe9\xe8", b"5", b'{"a": 1}', b"null", b"[" * 100_000])
def test_predictions_that_are_none_are_one_line(tmp_path, content):
    benchmark = R2R(r2r_folder(tmp_path), "val")
    (tmp_path / "said.json").write_bytes(content)
    with pytest.raises(DataError, match=r"said\.json.*(not UTF-8|not a list of records|not JSON|record 1)"):
        benchmark.read_predictions(tmp_path / "said.json")


def test_a_path_begins_at_the_start(tmp_path):
    """Who only stands at the goal has not arrived there."""
    benchmark = R2R(r2r_folder(tmp_path), "val")
    paths = {"1_0": Decision("d", ("d",)), "1_1": Decision("a", ("a",))}
    with pytest.raises(DataError, match="does not begin where the instruction does, at a"):
        benchmark.score(paths)


def test_labels_of_another_task_are_no_memes(tmp_path):
    write(tmp_path / "dev_seen.jsonl", lines([{"id": 1, "img": "a.png", "label": 1, "text": "x"}]))
    benchmark = HatefulMemes(tmp_path, "dev_seen")
    with pytest.raises(DataError, match="labels 0 and 1, and the model decides among no, yes"):
        benchmark.score({"1": Decision("yes", ("no", "yes"), (0.2, 0.8))})
    write(tmp_path / "said.csv", "id,proba,label\n1,nan,1\n")
    with pytest.raises(DataError, match="proba is nan"):
        benchmark.read_predictions(tmp_path / "said.csv")


def test_what_all_people_say_is_worth_most_as_they_say_it():
    for answers in (["t-shirt"] * 10, ["t-shirt"] * 6 + ["red"] * 4):
        best = max(soft_scores(answers).items(), key=lambda pair: pair[1])[0]
        assert vqa_accuracy(best, answers) == 1


def test_a_split_is_no_path(tmp_path):
    with pytest.raises(DataError, match="name the split as the files do"):
        HatefulMemes(tmp_path, "/tmp/x")


def test_what_is_scored_together_is_drawn_together(tmp_path):
    records = [
        {"identifier": f"dev-{group}-{pair}-0", "sentence": "x", "label": "True", "left_url": ""}
        for group in range(5)
        for pair in range(2)
    ]
    write(tmp_path / "dev.json", lines(records))
    benchmark = NLVR2(tmp_path, "dev")
    for limit, seed in ((5, 0), (4, 1), (1, 2)):
        kept = drawn(benchmark.cases, limit, seed, benchmark.together)
        assert len(kept) == max(2, limit - limit % 2)
        assert {case.id.rsplit("-", 2)[0] for case in kept} == {benchmark.together(case)[:-2] for case in kept}
        assert len({benchmark.together(case) for case in kept}) == len(kept) / 2
    assert drawn(benchmark.cases, 0, 0, benchmark.together) == benchmark.cases
