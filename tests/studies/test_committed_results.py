"""The results pages: their tables are those of the committed results, and their claims agree with the figures."""

import importlib
import json
from pathlib import Path

import pytest

from vislang.metrics.figure import SCHEMA, figures_from_json
from vislang.metrics.retrieval import METRICS
from vislang.search.corrections import Prior
from vislang.studies import (
    composed,
    corrections,
    data2vec_beta,
    demo,
    earlier,
    few_shot,
    grounding,
    heads,
    in_context,
    mixing,
    retrieval,
    tower_knowledge,
    translation,
)
from vislang.studies.data2vec import STUDIES
from vislang.studies.data2vec_table import compared, last_lines, markdown
from vislang.studies.line import mean_line

RESULTS = Path(__file__).parents[2] / "docs" / "results"
DATA2VEC = [RESULTS / f"data2vec-{name}" for name in STUDIES]
FEW_SHOT = ("easy-vqa", "emoji-captions", "emoji-groups-coded", "emoji-groups-named", "stamp-captions")


def read(*names: str):
    return json.loads(RESULTS.joinpath(*names).read_text())


def rows_of(name: str):
    return read(name, "results.json")["rows"]


def page(name: str) -> str:
    return (RESULTS / f"{name}.md").read_text()


def one_line(name: str) -> str:
    return " ".join(page(name).split())


def linear(name: str, probe: str, representation: str):
    wanted = (probe, representation, "linear")
    return [row for row in rows_of(f"data2vec-{name}") if (row["probe"], row["representation"], row["kind"]) == wanted]


def keys_in(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from keys_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_in(inner)


@pytest.mark.parametrize(
    "path", [path for path in RESULTS.glob("*/*.json") if path.parent.name != "benchmarks"], ids=lambda path: str(path)
)
def test_every_file_has_the_schema_and_figures_by_snake_case_names(path):
    values = json.loads(path.read_text())
    assert values["schema"] == SCHEMA
    for key, inner in keys_in(values):
        if key in ("figures", "blind") and isinstance(inner, dict):
            for name, figure in figures_from_json(inner).items():
                assert name == name.lower()
                assert name.replace("_", "").isalnum()
                assert figure.n > 0
                assert figure.low is None or figure.low <= figure.value <= figure.high


@pytest.mark.parametrize("run", DATA2VEC, ids=lambda run: run.name)
def test_data2vecs_tables_are_those_of_its_runs(run):
    table = markdown(rows_of(run.name))
    assert (run / "table.md").read_text() == table
    assert f"({run.name}/curves.png)" in page("data2vec")
    for part in table.strip().split("\n\n"):
        assert part in page("data2vec")


def test_the_comparison_of_one_encoder_with_three_is_that_of_the_runs():
    separate = [row for name in ("pictures", "prose", "recordings") for row in rows_of(f"data2vec-{name}")]
    assert compared(rows_of("data2vec-shared"), separate) in page("data2vec")


def test_pictures_are_classified_better_than_before_training_and_than_by_pixels():
    lines = last_lines(rows_of("data2vec-pictures"), "linear")["emoji-groups"]
    learned = lines["v2"]
    assert len(learned.seeds) >= 3
    for baseline in ("v2, before training", "pixels, 16 x 16"):
        assert learned.mean.low > lines[baseline].mean.high
    assert learned.mean.value > lines["v2, before training"].mean.value + 0.10


def test_the_second_generation_is_as_accurate_as_the_first_in_a_third_of_its_time():
    seeds = {row["seed"] for row in linear("pictures", "emoji-groups", "v1")}
    assert len(seeds) >= 3
    for seed in seeds:
        first, second = (
            {
                row["seconds"]: row["figures"]["accuracy"]["value"]
                for row in linear("pictures", "emoji-groups", generation)
                if row["seed"] == seed
            }
            for generation in ("v1", "v2")
        )
        best = max(first.values())
        assert min(seconds for seconds, accuracy in second.items() if accuracy >= best) <= max(first) / 3


@pytest.mark.parametrize(("name", "probes"), [("recordings-long", 2), ("recordings", 2), ("prose", 2)])
def test_where_the_page_says_that_pretraining_did_not_help_it_did_not(name, probes):
    lines = last_lines(rows_of(f"data2vec-{name}"), "linear")
    assert len(lines) == probes
    for own in lines.values():
        assert own["v2"].mean.low < own["v2, before training"].mean.high


def test_the_tables_of_scenes_are_those_of_the_runs():
    rows = rows_of("vilbert-scenes")
    table = grounding.markdown(rows)
    assert (RESULTS / "vilbert-scenes" / "table.md").read_text() == table
    for part in table.strip().split("\n\n"):
        assert part in page("vilbert")
    assert {row["seed"] for row in rows} == {0, 1, 2}


@pytest.mark.parametrize("test", grounding.TESTS)
def test_both_models_use_the_text_of_scenes_and_do_not_differ(test):
    def line(arm: str, kind: str):
        wanted = (test, arm, kind)
        rows = rows_of("vilbert-scenes")
        return mean_line([r for r in rows if (r["test"], r["arm"], r["kind"]) == wanted], "accuracy").mean

    arms = [arm.name for arm in grounding.ARMS]
    for arm in arms:
        assert line(arm, "all").low > line(arm + grounding.WITHOUT_TEXT, "all").high + 0.1
    for kind in ("all", *grounding.KINDS.values()):
        two, one = (line(arm, kind) for arm in arms)
        assert max(two.low, one.low) < min(two.high, one.high)


DUAL = "dual encoder, zero-shot"


def recall(test: str, arm: str, name: str):
    rows = rows_of("vilbert-retrieval")
    return mean_line([row for row in rows if (row["test"], row["arm"]) == (test, arm)], name).mean


def test_the_tables_of_retrieval_are_those_of_the_runs():
    rows = rows_of("vilbert-retrieval")
    table = retrieval.markdown(rows)
    assert (RESULTS / "vilbert-retrieval" / "table.md").read_text() == table
    for part in table.strip().split("\n\n"):
        assert part in page("vilbert")
    for arm in retrieval.ARMS:
        for test in retrieval.TESTS:
            assert [row["seed"] for row in rows if (row["arm"], row["test"]) == (arm.name, test)] == [0, 1, 2]


@pytest.mark.parametrize("way", ["text_to_image", "image_to_text"])
@pytest.mark.parametrize("test", retrieval.TESTS)
def test_two_encoders_find_more_than_two_streams_which_pretraining_helps(test, way):
    name = f"recall_at_10_{way}"
    assert name in METRICS
    for streams in ("two streams", "one stream"):
        assert recall(test, DUAL, name).low > recall(test, f"{streams}, zero-shot", name).high
    pretrained, plain, single = (
        recall(test, arm, name)
        for arm in ("two streams, fine-tuned", "two streams, fine-tuned, not pretrained", "one stream, fine-tuned")
    )
    assert pretrained.low > plain.high
    assert max(pretrained.low, single.low) < min(pretrained.high, single.high)


def test_the_dual_encoder_beats_a_bag_of_words_on_emoji_and_not_on_stamps():
    for name in METRICS:
        dual, words = (recall("emoji-twitter-names", arm, name) for arm in (DUAL, retrieval.WORDS))
        assert dual.low > words.high
        dual, words = (recall("stamp-pictures-test", arm, name) for arm in (DUAL, retrieval.WORDS))
        assert dual.value > words.value
        assert dual.low < words.high


def test_maximum_dropout_and_pieces_help_on_emoji():
    earlier = "dual encoder of mean features and whole words, zero-shot"
    for way in ("text_to_image", "image_to_text"):
        for limit in (5, 10):
            name = f"recall_at_{limit}_{way}"
            assert recall("emoji-twitter-names", DUAL, name).low > recall("emoji-twitter-names", earlier, name).high


def test_the_table_of_marks_is_that_of_the_study_and_its_settings_are_used():
    rows = rows_of("corrections")
    assert corrections.markdown(rows) in page("corrections")
    chosen = next(row["settings"] for row in rows if row["method"] == "marks and text")
    assert corrections.prior_of(tuple(chosen)) == Prior()
    values = {row["marks"]: figures_from_json(row["figures"]) for row in rows if row["method"] == "marks and text"}
    for score in ("precision", "f1", "average_precision"):
        assert values[16][score].value > values[8][score].value > values[0][score].value


def test_what_the_page_says_of_gates_is_in_the_results():
    text = " ".join((RESULTS.parent / "studies.md").read_text().split())
    rows = rows_of("gates")
    assert {row["steps"] for row in rows} == {162}

    def of(start: str, name: str):
        return mean_line([row for row in rows if row["arm"] == f"{start} at the start"], name)

    seen, blind = (
        {start: of(start, name) for start in ("open", "closed")} for name in ("loss_per_token", "loss_per_token_blind")
    )
    for first, second in zip(seen["open"].seeds, seen["closed"].seeds, strict=True):
        assert first < second
    assert f"is {seen['open'].mean.value:.3f} if the gates start open, and {seen['closed'].mean.value:.3f}" in text
    assert f"the losses are {blind['open'].mean.value:.3f} and {blind['closed'].mean.value:.3f}" in text


def test_what_the_page_says_of_beta_is_in_the_results():
    text = " ".join((RESULTS.parent / "studies.md").read_text().split())
    smooth, squared = (
        mean_line([row for row in rows_of("data2vec-beta") if row["arm"] == arm], "accuracy").mean.value
        for arm in (data2vec_beta.SMOOTH, data2vec_beta.SQUARED)
    )
    expected = (
        f"right in {100 * smooth:.1f} % with a smooth L1 loss and in {100 * squared:.1f} % with the squared error"
    )
    assert expected in text


def test_the_table_of_towers_is_that_of_the_study():
    table = tower_knowledge.markdown(rows_of("tower-knowledge"))
    assert (RESULTS / "tower-knowledge" / "table.md").read_text() == table
    assert table.strip() in page("tower-knowledge")


def test_what_the_page_says_of_towers_is_in_the_results():
    def of(tower: str, kind: str, labels: int):
        wanted = (tower, kind, labels)
        rows = rows_of("tower-knowledge")
        return mean_line([r for r in rows if (r["tower"], r["property"], r["labels"]) == wanted], "accuracy").mean

    untrained, imagenet = tower_knowledge.UNTRAINED, tower_knowledge.IMAGENET
    learned = of("data2vec", "position", 500)
    assert learned.low > max(of(untrained, "position", 500).high, of(imagenet, "position", 500).high)
    assert of(imagenet, "shape", 20).low > of("data2vec", "shape", 500).high + 0.4
    assert of("data2vec", "shape", 500).low < of(untrained, "shape", 500).high
    assert of(untrained, "colour", 100).low > of(imagenet, "colour", 100).high
    gains = [
        of("dual encoder", kind, count).value - of(imagenet, kind, count).value
        for kind in tower_knowledge.PROPERTIES
        for count in tower_knowledge.LABELS
    ]
    text = one_line("tower-knowledge")
    assert f"at most {-100 * min(gains):.1f} points less accurate" in text
    assert f"up to {100 * max(gains):.1f} points more" in text


@pytest.mark.parametrize(("name", "system"), [("easy-vqa", "DFAF"), ("scenes", "MAttNet"), ("scene-reasons", "R2C")])
def test_the_tables_of_the_earlier_systems_are_those_of_the_runs(name, system):
    table = earlier.markdown(rows_of(f"earlier/{name}"))
    assert (RESULTS / "earlier" / name / "table.md").read_text() == table
    for part in table.strip().split("\n\n"):
        assert part in page("earlier")
    assert f"| {system} | " in table


def test_dfaf_answers_better_than_without_the_image_and_than_by_the_question_alone():
    def line(arm: str):
        return mean_line([row for row in rows_of("earlier/easy-vqa") if row["arm"] == arm], "accuracy").mean

    for baseline in ("DFAF, without the image", "most frequent answer to the same text"):
        assert line("DFAF").low > line(baseline).high


@pytest.mark.parametrize(("study", "name"), [(in_context, "flamingo-in-context"), (mixing, "flamingo-mixture")])
def test_flamingos_tables_are_those_of_its_runs(study, name):
    rows = rows_of(name)
    table = study.markdown(rows)
    assert (RESULTS / name / "table.md").read_text() == table
    assert table.strip() in page("flamingo")
    assert {row["seed"] for row in rows} == {0, 1, 2}


def test_the_readme_has_the_figures_of_the_demo():
    metrics = read("flamingo-demo", "metrics.json")
    text = " ".join((RESULTS.parents[1] / "README.md").read_text().split())
    scored = metrics["tasks"]["easy-vqa"]
    own = scored["figures"]["accuracy"]
    guesses = scored["guesses"]
    assert f"after {metrics['train_seconds'] / 60:.1f} minutes of training" in text
    assert f"it took {metrics['total_seconds'] / 60:.1f} minutes in all" in text
    low, high = (f"{100 * own[edge]:.1f}" for edge in ("low", "high"))
    assert f"| **{100 * own['value']:.1f} %** (95 % interval {low} to {high}) |" in text
    for title, figure in (
        ("the same model, without images", scored["blind"]["accuracy"]),
        (
            "most frequent training answer to each question",
            guesses["most_frequent_answer_to_the_same_text"]["accuracy"],
        ),
        ("most frequent training answer", guesses["most_frequent_answer"]["accuracy"]),
        ("chance", guesses["chance"]["accuracy"]),
    ):
        assert f"| {title} | {100 * figure['value']:.1f} % |" in text
    assert own["value"] > 0.9
    assert metrics["train_seconds"] < 8 * 60
    assert metrics["total_seconds"] < 10 * 60


def test_what_the_page_says_of_the_demos_choices_is_in_the_figures():
    rows = rows_of("flamingo-demo")
    curves = [row for row in rows if row["arm"] != demo.VARIANCE]
    table = demo.markdown(curves)
    assert (RESULTS / "flamingo-demo" / "table.md").read_text() == table
    assert table.strip() in page("flamingo")
    (shares,) = (row["share"] for row in rows if row["arm"] == demo.VARIANCE)
    assert all(0.015 < share < 0.035 for share in shares.values())
    assert "2 to 3 % of" in " ".join((RESULTS.parent / "flamingo.md").read_text().split())
    last = str(demo.STEPS)
    seeds = {row["seed"] for row in curves}
    for seed in seeds:
        own = {row["arm"]: row["accuracy"][last] for row in curves if row["seed"] == seed}
        assert set(own) == {arm.name for arm in demo.ARMS}
        assert own[demo.ALL] > 0.9


def test_what_the_page_says_of_mixing_is_in_the_figures():
    """Training in turn has the lower loss, with and without images; the weighted sum gains more from the images."""
    text = one_line("flamingo")

    def own(stream: str, arm: str):
        return [row for row in rows_of("flamingo-mixture") if (row["stream"], row["arm"]) == (stream, arm)]

    for stream in ("pages", "captions"):
        summed, in_turn = own(stream, mixing.SUM), own(stream, mixing.SAME_EXAMPLES)
        seen, blind = (
            mean_line(summed, "loss_per_token", of).mean.value - mean_line(in_turn, "loss_per_token", of).mean.value
            for of in ("figures", "blind")
        )
        assert blind > seen > 0
        gains = [mixing.gain(rows, "loss_per_token") for rows in (summed, in_turn)]
        assert min(gains[0].seeds) > max(gains[1].seeds)
        assert f"{gains[0].mean.value:.3f} against {gains[1].mean.value:.3f}" in text
    for of in ("figures", "blind"):
        two = [mean_line(own("easy-vqa", arm), "accuracy", of).mean.value for arm in (mixing.SUM, mixing.SAME_EXAMPLES)]
        assert abs(two[0] - two[1]) < 0.01
    # After the same number of steps, in every seed.
    for stream in ("pages", "captions", "easy-vqa"):
        arms = own(stream, mixing.SUM), own(stream, mixing.SAME_STEPS)
        summed, in_turn = (mean_line(rows, "loss_per_token", "figures").seeds for rows in arms)
        assert max(summed) < min(in_turn)
        summed, in_turn = (mean_line(rows, "loss_per_token", "blind").seeds for rows in arms)
        assert (max(summed) < min(in_turn)) == (stream == "captions")
        summed, in_turn = (mixing.gain(rows, "loss_per_token").seeds for rows in arms)
        assert min(summed) > max(in_turn)


def test_the_induction_heads_are_where_the_page_says():
    rows = read("flamingo-in-context", "heads.json")["rows"]
    assert heads.markdown(rows).strip() in page("flamingo")
    repeating = [row["layer"] for row in rows if row["induction"] >= heads.SHOWN]
    assert (repeating[0], repeating[-1]) == (17, 24)
    assert {row["layer"] for row in rows if row["previous_token"] > 0.8} == {11, 16}


def test_early_gates_learn_episodes_better_and_new_groups_no_better():
    def line(arm: str, name: str, **keys):
        rows = [row for row in rows_of("flamingo-in-context") if row["arm"] == arm]
        return mean_line([row for row in rows if keys.items() <= row.items()], name).mean

    early, late = (line(arm, "exact_match", task=in_context.HELD_OUT) for arm in (in_context.EARLY, in_context.LATE))
    assert early.low > late.high
    for shots in in_context.SHOTS:
        two = [line(arm, "accuracy", task=in_context.TASK, shots=shots) for arm in (in_context.EARLY, in_context.LATE)]
        assert max(figure.low for figure in two) < min(figure.high for figure in two)


def test_what_the_page_says_of_the_few_shot_run_is_what_it_found():
    metrics = read("flamingo-few-shot", "metrics.json")
    episodes, easy_vqa = metrics["tasks"]["episodes"], metrics["tasks"]["easy-vqa"]
    captions = metrics["held_out"]["captions"]

    def percent(figures, name):
        return f"{100 * figures[name]['value']:.1f} %"

    text = one_line("flamingo")
    seen, blind = (percent(episodes[of], "exact_match") for of in ("figures", "blind"))
    assert f"{seen} of 500 episodes ({blind} without images)" in text
    seen, blind = (percent(easy_vqa[of], "accuracy") for of in ("figures", "blind"))
    assert f"{seen} of 500 questions of easy-VQA ({blind} without images)" in text
    seen, blind = (f"{captions[name]['value']:.2f}" for name in ("loss_per_token", "loss_per_token_blind"))
    assert f"{seen} ({blind} without images)" in text
    assert f"({metrics['steps']} steps, seed 0, {metrics['train_seconds'] / 60:.0f} minutes" in text


def test_what_the_page_says_of_films_is_what_was_found():
    """Far above a model that knows the frames but not their order, as with small time embeddings."""
    large, small = (
        read("flamingo-films", name)["tasks"]["easy-vqa-films"] for name in ("metrics.json", "small-times.json")
    )
    found, less = (figures_from_json(task["figures"])["accuracy"] for task in (large, small))
    blind = figures_from_json(large["blind"])["accuracy"]
    text = one_line("flamingo")
    assert f"**{100 * found.value:.1f} %** ({100 * found.low:.1f} to {100 * found.high:.1f})" in text
    assert f"{100 * less.value:.1f} % ({100 * less.low:.1f} to {100 * less.high:.1f})" in text
    assert f"{100 * blind.value:.1f} % without images" in text
    assert found.low > less.high + 0.4
    assert less.low > blind.value + 0.1


@pytest.mark.parametrize("name", ["flamingo", "vilbert"])
def test_what_the_pages_say_of_easy_vqa_is_what_was_found(name):
    metrics = read(f"{name}-easyvqa", "metrics.json")
    task = metrics["tasks"]["easy-vqa"]
    found = figures_from_json(task["figures"])["accuracy"]
    decimals = 1 if name == "flamingo" else 2
    value, low, high = (f"{100 * end:.{decimals}f}" for end in (found.value, found.low, found.high))
    text = one_line(name)
    assert f"({low} to {high}" in text
    assert f"**{value} %" in text
    assert f"all {task['n']:,} test questions" in text
    if name == "flamingo":
        assert f"{found.n - round(found.value * found.n)} wrong)" in text
        assert f"{metrics['train_seconds'] / 60:.1f} minutes" in text
    else:
        for guess in ("most_frequent_answer", "most_frequent_answer_to_the_same_text"):
            assert f"| {100 * task['guesses'][guess]['accuracy']['value']:.1f} %" in text


def test_the_table_of_shots_is_that_of_the_runs():
    folder = RESULTS / "flamingo-few-shot"
    found = few_shot.read(folder)
    assert tuple(task["task"] for task in found) == FEW_SHOT
    assert (folder / "table.md").read_text() == few_shot.markdown(found)
    assert few_shot.markdown(found).strip() in page("flamingo")


@pytest.mark.parametrize("task", ["emoji-groups-named", "emoji-groups-coded"])
def test_more_shots_help_on_groups_that_were_never_seen(task):
    points = read("flamingo-few-shot", f"{task}.json")["points"]

    def at(shots: int, select: str = "random", blind: bool = False):
        (point,) = [p for p in points if (p["shots"], p["select"], p["blind"]) == (shots, select, blind)]
        return figures_from_json(point["figures"])["accuracy"]

    drawn = [at(shots).value for shots in (0, 4, 8, 16, 32)]
    assert drawn == sorted(drawn)
    assert at(32).low > at(32, blind=True).high
    assert at(4, "retrieved").value > at(32).value


def test_shots_change_nothing_on_easy_vqa():
    points = read("flamingo-few-shot", "easy-vqa.json")["points"]
    values = [point["figures"]["accuracy"]["value"] for point in points if not point["blind"]]
    assert max(values) - min(values) < 0.015


@pytest.mark.parametrize(
    "name",
    [
        *(
            "data",
            "data2vec",
            "few_shot",
            "flamingo",
            "gpu",
            "optimisation",
            "rehearse",
            "retrieval",
            "search",
            "start",
        ),
        *("training", "vilbert"),
    ],
)
def test_the_tables_of_speed_are_those_of_the_benchmarks(name, monkeypatch):
    monkeypatch.syspath_prepend(RESULTS.parents[1] / "benchmarks")
    compare = importlib.import_module("compare")
    assert compare.markdown(read("benchmarks", f"{name}.json")) in page("benchmarks")


def test_the_table_of_plans_is_that_of_the_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(RESULTS.parents[1] / "benchmarks")
    rows = read("benchmarks", "plan.json")
    assert len(rows) >= 6
    assert all(row["met"] for row in rows)
    assert importlib.import_module("compare").markdown(rows) in (RESULTS.parent / "plan.md").read_text()


def test_the_tables_of_composed_sets_are_those_of_the_study():
    saved = read("composed", "results.json")
    table = composed.markdown(saved["rows"])
    assert (RESULTS / "composed" / "table.md").read_text() == table
    for part in table.strip().split("\n\n"):
        assert part in page("composed")
    assert saved["shared_pictures"] == 0


def baseline(name: str, own: str, metric: str):
    (row,) = [row for row in rows_of("composed") if (row["set"], row["baseline"]) == (name, own)]
    return figures_from_json(row["figures"])[metric]


@pytest.mark.parametrize(
    ("name", "own", "metric", "chance"),
    [
        *(("scene-reasons", "words alone", metric, 1 / 4) for metric in ("q_to_a", "qa_to_r")),
        *(("scene-reasons", "most similar images", metric, 1 / 4) for metric in ("q_to_a", "qa_to_r")),
        *(("scene-reasons", "image alone, without the question", metric, 1 / 4) for metric in ("q_to_a", "qa_to_r")),
        ("map-walks", "images alone, without the instruction", "success_rate", 1 / 6),
        ("picture-moods", "words alone", "accuracy", 1 / 3),
        ("picture-moods", "picture alone", "accuracy", 1 / 3),
    ],
)
def test_one_side_of_a_composed_set_gives_no_more_than_chance(name, own, metric, chance):
    figure = baseline(name, own, metric)
    assert figure.low < chance < figure.high


def test_composed_sets_can_be_answered_by_what_they_ask_for():
    order = baseline("map-walks", "things in their order", "success_rate")
    assert order.low > baseline("map-walks", "last thing", "success_rate").high
    assert order.low > baseline("map-walks", "things in any order", "success_rate").high
    solved = baseline("picture-moods", "kind and sign", "accuracy")
    assert solved.low > baseline("picture-moods", "words and picture, added", "accuracy").high


def test_the_image_helps_to_translate_only_where_the_noun_is_missing():
    rows = rows_of("translation")
    table = translation.markdown(rows)
    assert (RESULTS / "translation" / "table.md").read_text() == table
    for part in table.strip().split("\n\n"):
        assert part in page("translation")
    for row in rows:
        if row["arm"] == translation.BOTH:
            gain = figures_from_json(row["gain"])["chrf"]
            if row["condition"] == translation.CONDITIONS[1]:
                assert gain.low > 0.002
            else:
                assert gain.low < (0 if row["subset"] != "not ambiguous" else 0.001)
                assert gain.value < 0.006


def test_the_links_of_the_pages_lead_somewhere():
    for name in ("data2vec", "vilbert", "flamingo", "earlier", "benchmarks", "composed", "translation"):
        for part in page(name).split("](")[1:]:
            target = part.partition(")")[0].partition("#")[0]
            assert (RESULTS / target).exists(), f"{name}.md: {target}"
