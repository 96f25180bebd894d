"""What the docs claim of the committed runs, held against their figures."""

import json
from pathlib import Path

import pytest

from vislang.studies import few_shot, grounding, heads, in_context, mixing, retrieval
from vislang.studies.data2vec_table import compared, last_lines, markdown
from vislang.tasks.few_shot import FEW_SHOT_TASKS

DOCS = Path(__file__).parents[2] / "docs"
RUNS = sorted(path.parent for path in (DOCS / "runs").glob("data2vec-*/results.json"))


def rows_of(name: str):
    return json.loads((DOCS / "runs" / f"data2vec-{name}" / "results.json").read_text())["rows"]


def linear(name: str, probe: str, who: str):
    return [row for row in rows_of(name) if (row["probe"], row["who"], row["kind"]) == (probe, who, "linear")]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_tables_in_the_docs_are_those_of_the_runs(run):
    rows = json.loads((run / "results.json").read_text())["rows"]
    assert (run / "table.md").read_text() == markdown(rows)
    page = (DOCS / "data2vec.md").read_text()
    assert f"runs/{run.name}/curves.png" in page
    for table in markdown(rows).strip().split("\n\n"):
        assert table in page


def test_the_comparison_of_one_encoder_with_three_is_that_of_the_runs():
    separate = [row for name in ("pictures", "prose", "recordings") for row in rows_of(name)]
    assert compared(rows_of("shared"), separate) in (DOCS / "data2vec.md").read_text()


def test_pictures_are_told_apart_better_than_before_training_and_than_by_pixels():
    lines = last_lines(rows_of("pictures"), "linear")["emoji-groups"]
    learned = lines["v2"]
    assert len(learned.seeds) >= 3
    for baseline in ("v2, before training", "pixels, 16 x 16"):
        assert learned.accuracy.low > lines[baseline].accuracy.high
    assert learned.accuracy.value > lines["v2, before training"].accuracy.value + 0.10


def test_the_second_generation_is_as_good_as_the_first_in_a_third_of_its_time():
    for seed in seeds_of("pictures", "v1"):
        first, second = (
            {row["seconds"]: row["accuracy"] for row in linear("pictures", "emoji-groups", who) if row["seed"] == seed}
            for who in ("v1", "v2")
        )
        best = max(first.values())
        assert min(seconds for seconds, accuracy in second.items() if accuracy >= best) <= max(first) / 3


def seeds_of(name: str, who: str) -> set[int]:
    return {row["seed"] for row in rows_of(name) if row["who"] == who}


def test_the_table_of_scenes_is_that_of_the_runs():
    rows = json.loads((DOCS / "runs" / "vilbert-scenes" / "results.json").read_text())["rows"]
    assert (DOCS / "runs" / "vilbert-scenes" / "table.md").read_text() == grounding.markdown(rows)
    page = (DOCS / "vilbert.md").read_text()
    for table in grounding.markdown(rows).strip().split("\n\n"):
        assert table in page
    assert {row["seed"] for row in rows} == {0, 1, 2}


def test_scenes_are_pointed_at_by_the_text():
    """Far above pointing at any drawing, by both models, under both hands."""
    rows = json.loads((DOCS / "runs" / "vilbert-scenes" / "results.json").read_text())["rows"]
    for test in ("test", "test-twitter"):
        lines = {
            who: grounding.line_of([r for r in rows if (r["test"], r["who"], r["kind"]) == (test, who, "all")]).accuracy
            for who in {row["who"] for row in rows}
        }
        for arm in ("two streams", "one stream"):
            assert lines[arm].low > lines[f"{arm}, text taken away"].high + 0.1


DUAL = "dual encoder, zero-shot"


def retrieval_rows():
    return json.loads((DOCS / "runs" / "vilbert-retrieval" / "results.json").read_text())["rows"]


def test_the_table_of_pictures_and_their_words_is_that_of_the_runs():
    rows = retrieval_rows()
    assert (DOCS / "runs" / "vilbert-retrieval" / "table.md").read_text() == retrieval.markdown(rows)
    page = (DOCS / "vilbert.md").read_text()
    for table in retrieval.markdown(rows).strip().split("\n\n"):
        assert table in page
    for arm in retrieval.ARMS:
        for test in retrieval.TESTS:
            assert [r["seed"] for r in rows if (r["who"], r["test"]) == (arm.name, test)] == [0, 1, 2]


@pytest.mark.parametrize("way", ["text to image", "image to text"])
def test_what_the_docs_say_of_pictures_and_their_words_is_in_the_figures(way):
    """Two encoders find more than one model that looks at both; two streams find more with pretraining than without."""
    lines = {
        (test, who): retrieval.line_of(
            [r for r in retrieval_rows() if (r["test"], r["who"]) == (test, who)], f"R@10, {way}"
        ).accuracy
        for test in retrieval.TESTS
        for who in (*(arm.name for arm in retrieval.ARMS), retrieval.WORDS)
    }
    for test in retrieval.TESTS:
        for streams in ("two streams", "one stream"):
            assert lines[test, DUAL].low > lines[test, f"{streams}, zero-shot"].high
        plain, pretrained = "two streams, fine-tuned, not pretrained", "two streams, fine-tuned"
        assert lines[test, pretrained].low > lines[test, plain].high
        two, one = lines[test, pretrained], lines[test, "one stream, fine-tuned"]
        assert max(two.low, one.low) < min(two.high, one.high)


def test_the_dual_encoder_beats_a_bag_of_words_on_emoji_and_not_on_stamps():
    def line(test, who, figure):
        return retrieval.line_of([r for r in retrieval_rows() if (r["test"], r["who"]) == (test, who)], figure).accuracy

    emoji = [line("emoji-twitter-names", who, "R@5, image to text") for who in (DUAL, retrieval.WORDS)]
    assert emoji[0].low > emoji[1].high
    stamps = [line("stamp-pictures-test", who, "R@1, text to image") for who in (DUAL, retrieval.WORDS)]
    assert max(each.low for each in stamps) < min(each.high for each in stamps)


@pytest.mark.parametrize(("study", "run"), [(in_context, "in-context"), (mixing, "mixture")])
def test_flamingos_tables_are_those_of_its_runs(study, run):
    folder = DOCS / "runs" / f"flamingo-{run}"
    rows = json.loads((folder / "results.json").read_text())["rows"]
    table = study.markdown(rows)
    assert (folder / "table.md").read_text() == table
    assert table.strip() in (DOCS / "flamingo.md").read_text()
    assert {row["seed"] for row in rows} == {0, 1, 2}


def test_the_heads_that_repeat_are_where_the_docs_say():
    rows = json.loads((DOCS / "runs" / "flamingo-in-context" / "heads.json").read_text())["rows"]
    assert heads.markdown(rows).strip() in (DOCS / "flamingo.md").read_text()
    repeating = [row["layer"] for row in rows if row["repeats"] >= heads.SHOWN]
    assert (repeating[0], repeating[-1]) == (17, 24)
    assert {11, 16} == {row["layer"] for row in rows if row["token before"] > 0.8}


def test_what_the_docs_say_of_the_few_shot_run_is_what_it_found():
    metrics = json.loads((DOCS / "runs" / "flamingo-few-shot" / "metrics.json").read_text())
    tasks = metrics["tasks"]
    page = " ".join((DOCS / "flamingo.md").read_text().split())
    assert (
        f"{100 * tasks['episodes']['accuracy']:.1f} % of 500 held-out episodes (without images "
        f"{100 * tasks['episodes']['accuracy, blind']:.1f})"
    ) in page
    assert f"{100 * tasks['easy-vqa']['accuracy']:.1f} % of 500 questions of easy-VQA" in page
    assert f"({metrics['steps']} steps, seed 0, {metrics['train_seconds'] / 60:.0f} minutes" in page


def test_what_the_docs_say_of_films_is_what_was_found():
    """Far above who knows what the frames show but not their order; and that is all that small embeddings learn."""
    page = (DOCS / "flamingo.md").read_text()
    found, small = (
        json.loads((DOCS / "runs" / "flamingo-films" / name).read_text())
        for name in ("metrics.json", "small-times.json")
    )
    assert f"**{100 * found['accuracy']:.1f} %** ({100 * found['accuracy_low']:.1f} to" in page
    assert f"{100 * small['accuracy']:.1f} % ({100 * small['accuracy_low']:.1f} to" in page
    assert found["accuracy_low"] > small["accuracy_high"] + 0.4
    assert small["accuracy_low"] > found["blind_accuracy"] + 0.1


def test_the_table_of_examples_in_the_prompt_is_that_of_the_runs():
    found = few_shot.read(DOCS / "runs" / "flamingo-few-shot")
    assert {task["task"] for task in found} == set(FEW_SHOT_TASKS)
    assert few_shot.markdown(found).strip() in (DOCS / "flamingo.md").read_text()


@pytest.mark.parametrize("task", ["emoji-groups", "emoji-groups-coded"])
def test_more_examples_help_on_groups_that_were_never_met(task):
    found = json.loads((DOCS / "runs" / "flamingo-few-shot" / f"{task}.json").read_text())

    def at(shots: int, select: str = "random", blind: bool = False) -> dict:
        wanted = (shots, select, blind)
        (point,) = [p for p in found["points"] if (p["shots"], p["select"], p["blind"]) == wanted]
        return point["means"]["accuracy"]

    drawn = [at(shots)["value"] for shots in (0, 4, 8, 16, 32)]
    assert drawn == sorted(drawn)
    assert at(32)["low"] > at(32, blind=True)["high"]
    assert at(4, "retrieved")["value"] > at(32)["value"]


def test_the_table_of_speed_is_that_of_the_benchmark():
    rows = json.loads((DOCS / "runs" / "benchmarks" / "flamingo.json").read_text())
    page = (DOCS / "flamingo.md").read_text()
    for row in rows:
        assert f"| {row['name']} | {row['value']:.2f} {row['unit']} | {row['goal']} |" in page
