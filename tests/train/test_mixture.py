"""Several streams at once: pages, pairs and questions; summed, or in turn."""

import json

import pytest

from tests import tiny
from tests.data.test_tars import write as write_tar
from tests.train.test_resume import steps, trained
from vislang.cli import main
from vislang.document import Document, Image
from vislang.example import VERBATIM, Answers, Example
from vislang.recipe import RecipeError, read_recipe
from vislang.train.log import read_metrics

RECIPE = """model:
  class_path: vislang.models.flamingo.recipe.FlamingoRecipe
  init_args:
    language_model: {language}
    vision_tower: {vision}
    bridge: {bridge}
    collate: {{pack: 64, page_tokens: 40}}
data:
  - {{sources: ["pages:{folder}/site"], name: pages, batch_size: 2}}
  - {{sources: ["{folder}/*.tar"], name: captions, weight: 0.2, batch_size: 3}}
  - {{sources: ["{folder}/my.jsonl"], name: questions, batch_size: 4, shots: 2}}
hold_out: 0.3
eval_limit: 4
train:
  steps: 12
  eval_examples: 4
  lr: 0.003
  lr_scale: {{gates: 20}}
  eval_every: 6
  checkpoint_every: 5
"""


@pytest.fixture
def recipe(towers, pictures):
    site = pictures / "site"
    site.mkdir()
    for n in range(6):
        words = "a cat and a dog and " * 5
        (site / f"{n}.html").write_text(f"<p>{words}<img src='../{n}.png'><p>a red shape<img src='../{n + 6}.png'>")
    pairs = {}
    for n in range(8):
        pairs |= {f"{n}.png": (pictures / f"{n}.png").read_bytes(), f"{n}.txt": b"a shape and a cat"}
    write_tar(pictures / "pairs.tar", pairs)
    path = pictures / "mixture.yaml"
    language, vision = towers
    path.write_text(RECIPE.format(language=language, vision=vision, bridge=json.dumps(tiny.BRIDGE), folder=pictures))
    return path


def test_each_step_sums_over_the_streams(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train", str(recipe), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "pages: 4 examples" in " ".join(said.split())
    rows = steps(out)
    for row in rows.values():
        losses = [row[f"loss/{name}/text"] for name in ("pages", "captions", "questions")]
        assert row["loss"] == pytest.approx(losses[0] + 0.2 * losses[1] + losses[2], rel=1e-5)
        assert "questions/gate/1/attention" in row
    metrics = json.loads((out / "metrics.json").read_text())
    for name in ("pages", "captions", "questions"):
        figures = metrics["held_out"][name]
        assert figures["loss_per_token"]["value"] > 0
        assert figures["loss_per_token"] != figures["loss_per_token_blind"]
    results = json.loads((out / "evaluation" / "questions" / "results.json").read_text())
    assert 0 <= results["figures"]["accuracy"]["value"] <= 1
    assert not (out / "evaluation" / "pages").exists()
    (first, *_) = [row for row in read_metrics(out / "metrics.jsonl") if "eval/pages/loss_per_token" in row]
    assert {"eval/captions/loss_per_token", "eval/questions/accuracy"} <= set(first)
    page = (out / "report.html").read_text()
    for caption in ("Loss: pages", "Loss: captions", "Loss: questions", "How far each gate is open"):
        assert page.count(f"<figcaption>{caption}</figcaption>") == 1


def test_in_turn_each_step_takes_one_stream_and_a_resumed_run_goes_on_alike(recipe, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = ("--train.mixing=round-robin", "--train.eval_every=0")
    trained(capsys, recipe, whole, *settings)
    rows = steps(whole)
    for step, row in rows.items():
        (taken,) = [name for name in ("pages", "captions", "questions") if f"loss/{name}/text" in row]
        assert taken == ("pages", "captions", "questions")[(step - 1) % 3]
        weight = 0.2 if taken == "captions" else 1
        assert row["loss"] == pytest.approx(weight * row[f"loss/{taken}/text"], rel=1e-6)
    trained(capsys, recipe, cut, *settings, "--train.keep_checkpoints=9")
    # Take the last checkpoints away, so that the run continues from step 5.
    for number in (10, 12):
        for path in (cut / "checkpoints").glob(f"*{number}"):
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    trained(capsys, recipe, cut, *settings, "--train.keep_checkpoints=9", "--resume", str(cut))
    assert steps(cut) == rows


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ("[]", "at least one"),
        ("[{sources: [easy-vqa], name: a}, {sources: [easy-vqa], name: a}]", "need one name each"),
        ("[{sources: [], name: a}]", "sources is empty"),
        ("[{sources: [easy-vqa], name: a, batch_size: -1}]", "must not be negative"),
        ("[{sources: [easy-vqa], name: a, shots: -1}]", "must not be negative"),
        ("[{sources: [easy-vqa], name: a, weight: -1}]", "weight must be above 0"),
    ],
)
def test_streams_that_cannot_be_are_refused(recipe, streams, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(recipe, [f"--data={streams}"])


def test_examples_stand_before_records_of_parts_too(towers, pictures):
    model = tiny.flamingo(towers)
    shot = Example("s", Document([Image(pictures / "0.png"), "what color?"]), Answers({"red": 1.0}))
    example = Example("x", Document(["Compare ", Image(pictures / "1.png")]), Answers({"blue": 1.0}), wording=VERBATIM)
    learned = model.prompts.render(example, [shot], learn=True)
    assert learned.parts[-2:] == example.prompt.parts
    assert learned.parts[:-2] == (*model.prompts.examples([shot], learned=True),)
    assert learned.target == "blue"
