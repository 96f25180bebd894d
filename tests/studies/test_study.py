"""Studies: the verdict follows from the figures by one rule, nothing is trained twice, mistakes are named."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.run_docs import ROOT, blocks
from tests.studies_page import RESULTS, page
from vislang.cli import main
from vislang.errors import UserError
from vislang.metrics.figure import Figure, figures_as_json, plain, share
from vislang.metrics.paired import difference_over_seeds, student
from vislang.recipe import read_recipe
from vislang.runs.folder import read_json
from vislang.studies import study as framework
from vislang.studies.arms import Arm
from vislang.studies.catalogue import all_claims, open_study
from vislang.studies.measures import Scored
from vislang.studies.pages import entry_of, write_page
from vislang.studies.study import Study, verdict_on

RECIPE = """
model:
  class_path: vislang.models.data2vec.pretraining.Data2VecRecipe
  init_args:
    encoder: {{width: 16, depth: 2, heads: 2, mlp_width: 32}}
    modalities:
      image: {{size: 32, patch: 8, decoder: {{width: 16, layers: 1, groups: 2}}, positions: fixed}}
    masking: {{image: {{block: 1}}}}
    choices: {{top_k: 2, copies: 2, class_loss: 0, decay: 0.9, end_decay: 0.9, anneal_steps: 4}}
data: [{{sources: [{folder}], name: pictures}}]
hold_out: 0.25
train: {{steps: 2, batch_size: 4, warmup_steps: 0}}
"""

MINE = """
from pathlib import Path

from tests.studies.test_study import Loss
from vislang.studies.arms import Arm
from vislang.studies.study import Study

RECIPE = Path(__file__).parent / "recipe.yaml"
STUDY = Study(
    name="mine", claim="Two layers are better than one.", source="nobody, table 1", metric="loss", better="two",
    than=("one",), arms=(Arm("two", RECIPE), Arm("one", RECIPE, ("--model.choices.top_k=1",))), measure=Loss(),
)
"""


@dataclass(frozen=True)
class Loss:
    """The loss on held-out pictures; on unseen ones, that and 1."""

    of: str = "seen"

    def check(self):
        pass

    def __call__(self, run):
        found = read_json(run / "metrics.json")["held_out"]["pictures"]["regression"]["value"]
        return {"loss": plain(found + (self.of == "unseen"), 2)}


@pytest.fixture
def tiny(tmp_path) -> Study:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(8):
        Pillow.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=folder))
    (tmp_path / "mine.py").write_text(MINE)
    return open_study(str(tmp_path / "mine.py"))


class Trainer:
    """Stands for training: a run has 7 steps with seed 0, and one more with each further seed."""

    def __init__(self):
        self.names: list[str] = []
        self.lengths: list[str] = []
        self.killed_at: str | None = None
        self.steps = 7

    def __call__(self, arm, arms, seed, runs):
        name = arm.name.split()[0]
        if name == self.killed_at:
            raise KeyboardInterrupt
        assert arm.start is None or arm.start in {other.name for other in arms}
        folder = runs / f"{arm.name}-{seed}"
        if folder.is_dir():
            return folder
        self.names.append(f"{name}-{seed}")
        self.lengths.append(arm.changes[-1])
        folder.mkdir(parents=True)
        held_out = {"pictures": figures_as_json({"regression": plain(1.0, 2)})}
        (folder / "metrics.json").write_text(
            json.dumps({"steps": self.steps + seed, "train_seconds": 1.0, "held_out": held_out})
        )
        return folder


@pytest.fixture
def trained(monkeypatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr(framework, "trained", trainer)
    return trainer


def two_runs(first, second, metric="accuracy"):
    """Rows of two arms, with a value for each seed; None for a seed that is missing."""
    made = (lambda value: share(1000 * value, 1000)) if metric == "accuracy" else (lambda value: plain(value, 1000))
    return [
        {"arm": arm, "seed": seed, "figures": figures_as_json({metric: made(value)})}
        for arm, values in (("a", first), ("b", second))
        for seed, value in enumerate(values)
        if value is not None
    ]


def claim(metric="accuracy", than=("b",)):
    claims = all_claims()
    return replace(claims["grounding"], metric=metric, better="a", than=than)


@pytest.mark.parametrize(
    ("degrees", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (7, 2.3646), (30, 2.0423), (201, 1.9718)]
)
def test_students_quantiles_are_those_of_the_tables(degrees, t):
    assert student(degrees) == pytest.approx(t, abs=5e-5)


def test_a_difference_over_seeds_has_students_interval():
    first, second = ([plain(value, 10) for value in values] for values in ((3.0, 5.0, 4.0), (1.0, 2.0, 3.0)))
    found = difference_over_seeds(first, second)
    assert found.value == pytest.approx(2.0)
    assert found.high - found.value == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_test_examples_widen_the_interval_however_many_seeds_there_are():
    sides = [Figure(0.6, 0.5, 0.7, 100)] * 50, [Figure(0.5, 0.4, 0.6, 100)] * 50
    found = difference_over_seeds(*sides)
    assert found.high - found.value == pytest.approx(math.hypot(0.1, 0.1))
    with pytest.raises(ValueError, match="same seeds"):
        difference_over_seeds(sides[0], sides[1][:3])


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        ((0.80, 0.81, 0.82), (0.60, 0.61, 0.61), "supported"),
        ((0.60, 0.61, 0.61), (0.80, 0.81, 0.82), "not supported"),
        ((0.80, 0.60, 0.70), (0.60, 0.75, 0.61), "undecided at this scale"),
        # The same difference in every seed, but too small for a thousand test examples.
        ((0.71, 0.71, 0.71), (0.70, 0.70, 0.70), "undecided at this scale"),
        # One seed decides nothing, and a seed without its pair does not count.
        ((0.99,), (0.01,), "undecided at this scale"),
        ((0.99, 0.99, None), (0.01, None, 0.01), "undecided at this scale"),
        ((), (), None),
        ((0.9, 0.9), (), None),
    ],
)
def test_the_verdict_follows_from_the_interval(first, second, word):
    assert verdict_on(claim(), two_runs(first, second)).word == word


def test_a_lower_loss_is_better():
    rows = two_runs((1.0, 1.1, 1.0), (2.0, 2.1, 2.1), "loss")
    found = verdict_on(claim("loss"), rows)
    assert found.word == "supported"
    assert found.differences["b"].value == pytest.approx(3.1 / 3)
    assert verdict_on(claim("loss"), two_runs((2.0, 2.1, 2.1), (1.0, 1.1, 1.0), "loss")).word == "not supported"


def test_a_claim_needs_all_its_comparisons():
    def third(*values):
        return [row | {"arm": "c"} for row in two_runs(values, ())]

    rows = two_runs((0.80, 0.81, 0.82), (0.60, 0.61, 0.61))
    both = claim(than=("b", "c"))
    assert verdict_on(both, rows).word == "undecided at this scale"
    assert verdict_on(both, [*rows, *third(0.5, 0.5, 0.5)]).word == "supported"
    assert verdict_on(both, [*rows, *third(0.8, 0.81, 0.81)]).word == "undecided at this scale"
    assert verdict_on(both, [*rows, *third(0.95, 0.95, 0.95)]).word == "not supported"


def test_a_study_that_was_killed_continues_and_trains_nothing_twice(tiny, tmp_path, trained):
    out, runs = tmp_path / "out", tmp_path / "runs"
    trained.killed_at = "one"
    with pytest.raises(KeyboardInterrupt):
        framework.run(tiny, 1, 0.2, out, runs)
    assert trained.names == ["two-0"]
    assert [row["arm"] for row in tiny.rows(out)] == ["two"]
    trained.killed_at = None
    framework.run(tiny, 1, 0.2, out, runs)
    assert trained.names == ["two-0", "one-0"]
    before = json.loads((out / "mine" / "results.json").read_text())
    framework.run(tiny, 1, 0.2, out, runs)
    # More seeds with the same minutes for each run.
    framework.run(tiny, 2, 0.4, out, runs)
    assert trained.names == ["two-0", "one-0", "two-1", "one-1"]
    after = json.loads((out / "mine" / "results.json").read_text())
    assert after["rows"][:2] == before["rows"]
    assert {(row["arm"], row["seed"], row["minutes"], row["steps"]) for row in after["rows"]} == {
        (arm, seed, 0.1, 7 + seed) for arm in ("two", "one") for seed in (0, 1)
    }


def test_an_arm_whose_settings_changed_is_trained_again(tiny, tmp_path, trained):
    out, runs = tmp_path / "out", tmp_path / "runs"
    framework.run(tiny, 1, 0.2, out, runs)
    two, one = tiny.arms
    changed = replace(tiny, arms=(two, replace(one, changes=("--model.choices.beta=1",))))
    framework.run(changed, 1, 0.2, out, runs)
    assert trained.names == ["two-0", "one-0", "one-0"]
    rows = json.loads((out / "mine" / "results.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == ["two", "one"]
    assert len({row["settings"] for row in rows}) == 2
    # Another budget is another experiment: its rows are added, and the verdict is about the longest one.
    framework.run(changed, 1, 0.3, out, runs)
    assert trained.names[3:] == ["two-0", "one-0"]
    assert {row["minutes"] for row in json.loads((out / "mine" / "results.json").read_text())["rows"]} == {0.1, 0.15}
    assert {row["minutes"] for row in changed.rows(out)} == {0.15}


def test_an_arm_that_starts_from_another_is_trained_again_with_it(tiny, tmp_path, trained):
    out, runs = tmp_path / "out", tmp_path / "runs"
    two, one = tiny.arms
    chained = replace(tiny, arms=(two, replace(one, start="two")))
    framework.run(chained, 1, 0.2, out, runs)
    framework.run(
        replace(chained, arms=(replace(two, changes=("--model.choices.beta=1",)), *chained.arms[1:])), 1, 0.2, out, runs
    )
    assert trained.names == ["two-0", "one-0", "two-0", "one-0"]


def test_with_equal_steps_every_run_takes_those_of_the_first(tiny, tmp_path, trained):
    framework.run(replace(tiny, equal="steps"), 2, 2.0, tmp_path / "out", tmp_path / "runs")
    assert trained.names == ["two-0", "one-0", "two-1", "one-1"]
    assert trained.lengths == ["--train.minutes=0.5"] + 3 * ["--train.steps=7"]


def test_with_equal_steps_no_arm_keeps_the_steps_of_another_first_arm(tiny, tmp_path, trained):
    out, runs = tmp_path / "out", tmp_path / "runs"
    equal = replace(tiny, equal="steps")
    framework.run(equal, 1, 0.2, out, runs)
    trained.steps = 9
    two, one = equal.arms
    framework.run(replace(equal, arms=(replace(two, changes=("--model.choices.beta=1",)), one)), 1, 0.2, out, runs)
    assert trained.names == ["two-0", "one-0", "two-0", "one-0"]
    assert trained.lengths[-1] == "--train.steps=9"


def test_arms_that_others_start_from_are_trained_for_their_share_and_not_measured(tiny, tmp_path, trained):
    """The share is of the steps of the first run with the same recipe; a resumed study takes them from its rows."""
    two, one = tiny.arms
    other = tmp_path / "other.yaml"
    other.write_text(two.recipe.read_text())
    starts = (Arm("all", other, ("--hold_out=0.2",)), Arm("half", other, length=0.5))
    dose = replace(tiny, arms=(replace(two, start="all"), replace(one, start="half")), starts=starts, equal="steps")
    assert dose.run_lengths == 3.5
    trained.killed_at = "one"
    with pytest.raises(KeyboardInterrupt):
        framework.run(dose, 1, 3.5, tmp_path / "out", tmp_path / "runs")
    trained.killed_at = None
    trained.steps = 9
    framework.run(dose, 1, 3.5, tmp_path / "out", tmp_path / "runs")
    assert trained.names == ["all-0", "two-0", "half-0", "one-0"]
    assert trained.lengths == ["--train.minutes=1.0", "--train.minutes=1.0", "--train.steps=4", "--train.steps=7"]
    rows = dose.rows(tmp_path / "out")
    assert [(row["arm"], [run["seconds"] for run in row["starts"]]) for row in rows] == [("two", [1.0]), ("one", [1.0])]
    assert framework.minutes_spent(rows) == pytest.approx(4 / 60)
    assert entry_of(dose, tmp_path / "out").command == "vislang study mine --budget 3.5 --seeds 1"
    with pytest.raises(UserError, match=r"leave 0\.171 minutes for each run; 0\.2 is the least\. Give --budget 0\.7"):
        framework.share_of(dose, 1, 0.6)


def test_several_measures_of_a_run_are_rows_of_their_own(tiny, tmp_path, trained):
    @dataclass(frozen=True)
    class Accuracy(Loss):
        def __call__(self, run):
            return {"accuracy": share(3, 4)}

    both = {"seen": Loss(), "unseen": replace(Loss(), of="unseen"), "answers": Accuracy()}
    study = replace(tiny, measure=both, better="two, seen", than=("one, unseen",))
    framework.run(study, 2, 0.4, tmp_path / "out", tmp_path / "runs")
    assert trained.names == ["two-0", "one-0", "two-1", "one-1"]
    rows = study.rows(tmp_path / "out")
    assert [row["arm"] for row in rows[:6]] == [f"{arm}, {name}" for arm in ("two", "one") for name in both]
    # Each run counts once, and rows without the metric of the claim are left out of the verdict and the page.
    assert framework.minutes_spent(rows) == pytest.approx(4 / 60)
    entry = entry_of(study, tmp_path / "out")
    assert entry.verdict.differences["one, unseen"].value == pytest.approx(1.0)
    write_page(entry, tmp_path / "out")
    assert "one, answers" not in (tmp_path / "out" / "mine" / "page.html").read_text()
    with pytest.raises(UserError, match="must name arms of the study, not two"):
        replace(study, better="two")


def test_a_study_in_a_file_is_run_and_shown(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "mine.py", "--budget", "0.2", "--seeds", "1", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["studies"]
    assert (found["name"], found["verdict"], found["seeds"]) == ("mine", "undecided at this scale", 1)
    assert found["differences"]["one"]["low"] is None
    drawn = (tmp_path / "studies" / "mine" / "page.html").read_text()
    for shown in (
        "Two layers are better than one.",
        "nobody, table 1",
        "undecided at this scale",
        "choices.top_k=1",
        "--budget 0.2 --seeds 1",
    ):
        assert shown in drawn
    index = (tmp_path / "studies" / "studies.md").read_text()
    assert "| `mine` | Two layers are better than one. | nobody, table 1 | undecided at this scale |" in index
    assert 'href="mine/page.html"' in (tmp_path / "studies" / "studies.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["two-strems"],
            "no study 'two-strems'. The studies are two-streams, depth, depth-grounding, pretraining-dose, gates",
        ),
        (["missing.py"], "missing.py: no such file"),
        (["mixing"], "mixing: has a program of its own. Run: python -m vislang.studies.mixing"),
        (["gates", "--budget", "0.3"], "leave 0.05 minutes for each run; 0.1 is the least. Give --budget 0.6 or more"),
        (["gates", "--budget", "nan"], "0.1 is the least"),
        (["gates", "--seeds", "0"], "--seeds 0: give at least 1"),
        ([], "give the name of a study, --list or --all"),
        (["gates", "--all"], "give the name of a study, --list or --all"),
        (["--list", "--budget", "3"], "--budget: --list runs nothing"),
    ],
)
def test_a_mistake_is_named(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": 3}', '{"rows": [{"arm": "closed at the start"}]}'])
def test_results_that_cannot_be_read_are_named(text, tmp_path, capsys):
    path = tmp_path / "gates" / "results.json"
    path.parent.mkdir()
    path.write_text(text)
    assert main(["study", "--list", "--out", str(tmp_path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert path.read_text() == text


def test_a_study_must_compare_its_arms(tmp_path):
    with pytest.raises(UserError, match="must name arms of the study, not c"):
        Study(
            *("s", "claim", "source", "accuracy", "a", ("c",)),
            arms=(Arm("a", tmp_path), Arm("b", tmp_path)),
            measure=Scored("t"),
        )


STUDIES = {name: one for name, one in all_claims().items() if isinstance(one, Study)}


@pytest.mark.parametrize("name", STUDIES)
def test_every_arm_of_a_study_is_a_recipe_that_can_be_read(name):
    study = STUDIES[name]
    assert study.name == name
    found = set()
    for arm in study.trained_arms:
        assert arm.recipe.is_relative_to(Path(framework.__file__).parent)
        recipe, values = read_recipe(arm.recipe, [*arm.changes, "--train.minutes=1"])
        assert recipe.train.steps is None
        found.add(json.dumps((values, arm.start, arm.length), default=str))
    assert len(found) == len(study.trained_arms)


def test_the_example_of_the_docs_is_a_study(tmp_path):
    ((_, _, text),) = blocks(ROOT / "docs" / "studies.md", "python")
    (tmp_path / "latents.py").write_text(text, encoding="utf-8")
    study = open_study(str(tmp_path / "latents.py"))
    eight, two = (read_recipe(arm.recipe, arm.changes)[0].model.bridge.latents for arm in study.arms)
    assert (eight, two) == (8, 2)


def test_two_streams_and_one_have_the_same_number_of_parameters():
    from vislang.models.vilbert.model import ViLBERT

    counts = []
    for arm in STUDIES["two-streams"].arms:
        recipe, _ = read_recipe(arm.recipe, arm.changes)
        streams = replace(recipe.model.streams, vision=replace(recipe.model.streams.vision, feature_width=1280))
        counts.append(sum(p.numel() for p in ViLBERT(streams, pretraining=False).streams.parameters()))
    assert counts[0] == pytest.approx(counts[1], rel=0.01), counts


def test_the_index_is_that_of_the_committed_results():
    assert (RESULTS / "studies.md").read_text(encoding="utf-8") == page()
    for name, one in all_claims().items():
        # Every recorded claim finds its rows.
        assert isinstance(one, Study) or entry_of(one, RESULTS).verdict.word, name
