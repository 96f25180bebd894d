"""Metrics and baselines by kind of target."""

import math

import pytest
from PIL import Image as Pillow

from vislang.boxes import Box
from vislang.document import Audio, Document, Image
from vislang.errors import UserError
from vislang.example import Answers, Choice, Example, Label, Prediction, Text, Value
from vislang.metrics.by_kind import guesses, kind_of_all, score
from vislang.metrics.items import items


def example(target, *parts, choices=()):
    return Example("x", Document(parts), target, tuple(Document([choice]) for choice in choices))


def scored(examples, *answers):
    return score(examples, [Prediction(e.id, answer) for e, answer in zip(examples, answers, strict=True)])


def test_answers_have_soft_scores_and_no_answer_has_none():
    examples = [example(Answers({"red": 0.6, "blue": 1.0})), example(Answers({"none": 1.0}))]
    assert scored(examples, "a Red", None)["accuracy"].value == pytest.approx(0.3)
    figure = scored(examples, "blue", "None.")["accuracy"]
    assert (figure.value, figure.n) == (1, 2)


def test_choices_and_labels():
    choices = [example(Choice(1), choices=("a", "b")), example(Choice(0), choices=("a", "b"))]
    assert scored(choices, 1, 1)["accuracy"].value == scored(choices, 1, None)["accuracy"].value == 0.5
    assert scored([example(Label("a")), example(Label("b"))], "a", "B")["accuracy"].value == 0.5


@pytest.mark.parametrize("answer", ["1", 2, -1, 1.0])
def test_what_is_no_index_of_a_choice_is_an_error(answer):
    """Compared with the right index it would be wrong without a word."""
    with pytest.raises(UserError, match=r"prediction x: .* is not the index of a choice, from 0 to 1"):
        scored([example(Choice(1), choices=("a", "b"))], answer)


def test_what_is_no_label_is_an_error():
    with pytest.raises(UserError, match=r"prediction x: 1 is not a label; write it as a text, in quotes"):
        scored([example(Label("1"))], 1)


def test_a_tag_for_each_word_is_scored_word_by_word():
    examples = [example(Label("PER O O LOC"), "Ada lives in Ulm"), example(Label("O"), "so")]
    figure = scored(examples, "PER O O O", "LOC")["accuracy"]
    assert (figure.value, figure.n) == (3 / 5, 5)
    # A label of the whole text is correct or wrong as a whole.
    assert scored([example(Label("a b"), "some few words")], "a c")["accuracy"].value == 0


def test_boxes_and_the_best_that_candidates_allow():
    examples = [example(Box(10, 10, 30, 20)), example(Box(10, 10, 30, 20))]
    # 140 of 200 shared, 0.7; exactly one half is enough, as in MAttNet; 99 of 200 are not.
    assert scored(examples, Box(10, 10, 24, 20), Box(10, 10, 20, 20))["accuracy"].value == 1
    assert scored(examples, Box(10, 10, 24, 20), Box(10, 10, 19.9, 20))["accuracy"].value == 0.5
    candidates = (Box(0, 0, 5, 5), Box(10, 10, 30, 20))
    found = score(examples, [Prediction("x", candidates[0], candidates, (0.9, 0.1)), Prediction("x", Box(0, 0, 1, 1))])
    assert found["accuracy"].value == 0
    assert found["upper_bound"].value == 0.5
    with pytest.raises(UserError, match="'red' is not a box"):
        scored(examples, "red", "red")


def test_a_missing_number_counts_as_the_mean_of_the_others():
    examples = [example(Value(v)) for v in (1.0, 2.0, 3.0)]
    found = scored(examples, 1, 2.0, 3)
    assert found["pearson_r"].value == pytest.approx(1)
    assert found["rmse"].value == 0
    assert "answered" not in found
    found = scored(examples, 1.0, None, 3.0)
    assert found["rmse"].value == 0
    assert found["answered"].value == pytest.approx(2 / 3)
    assert math.isnan(scored(examples, 1.0, 1.0, 1.0)["pearson_r"].value)
    with pytest.raises(UserError, match="'high' is not a number"):
        scored(examples, 1.0, "high", 3.0)


def test_text_is_scored_as_captions_and_that_of_recordings_as_transcripts():
    assert list(scored([example(Text(("a dog",)), Image("a.png"))], "a dog")) == ["exact_match", "bleu_1", "bleu_2"]
    found = scored([example(Text(("A  Dog runs",)), Audio("a.wav"))], "a cat runs")
    assert found["word_error_rate"].value == pytest.approx(1 / 3)


def test_each_text_is_scored_by_the_main_metric_of_all():
    def of(*medium):
        return [example(Text((text,)), *medium) for text in ("a dog runs", "a cat sleeps")]

    predictions = [Prediction("x", "a dog runs"), Prediction("x", "a dog sleeps")]
    for examples, metric in ((of(), "cider_d"), (of(Image("a.png")), "cider_d"), (of(Audio("a.wav")), "exact_match")):
        found = items(examples, predictions)
        assert (found.metric, found.right.tolist()) == (metric, [True, False])
        if metric == "cider_d":
            assert score(examples, predictions)[metric].value == pytest.approx(found.scores.mean())


def test_a_task_has_one_kind_and_text_among_answers_counts_as_one():
    with pytest.raises(UserError, match=r"several kinds of target: label \(x\), value \(x\)"):
        kind_of_all([example(Label("a")), example(Value(1.0))])
    mixed = [example(Answers({"red": 1.0})), example(Text(("blue",)))]
    assert kind_of_all(mixed) == "answers"
    assert scored(mixed, "red", "Blue.")["accuracy"].value == 1
    with pytest.raises(UserError, match="x: cannot be scored without a target"):
        scored([example(None), example(Label("a"))], "a", "a")


def test_guesses_are_learned_from_the_support_only():
    train = [("a?", "yes"), ("a?", "yes"), ("b?", "red"), ("b?", "red"), ("b?", "no"), ("a?", "yes")]
    test = [("a?", "yes"), ("b?", "red"), ("new?", "yes"), ("b?", "no")]
    support, examples = ([example(Answers({a: 1.0}), q) for q, a in side] for side in (train, test))
    found = {name: figures["accuracy"].value for name, figures in guesses(support, examples).items()}
    assert found == {
        "most_frequent_answer": 0.5,
        "most_frequent_answer_to_the_same_text": 0.75,
        "chance": pytest.approx(1 / 3),
    }
    assert guesses([], examples) == {}


def test_guesses_of_other_kinds(tmp_path):
    choices = [example(Choice(0), choices=("a", "b")), example(Choice(0), choices="abcd")]
    assert guesses([], choices)["chance"]["accuracy"].value == pytest.approx((1 / 2 + 1 / 4) / 2)
    numbers = [example(Value(v)) for v in (1.0, 3.0)]
    assert guesses(numbers, numbers)["mean"]["rmse"].value == 1
    Pillow.new("RGB", (20, 10)).save(tmp_path / "a.png")
    boxes = [example(box, Image(tmp_path / "a.png")) for box in (Box(0, 0, 20, 9), Box(0, 0, 5, 5))]
    assert guesses([], boxes)["whole_image"]["accuracy"].value == 0.5
    # With regions from files, images need not exist.
    assert guesses([], [example(Box(0, 0, 5, 5), Image("none.png"))]) == {}
