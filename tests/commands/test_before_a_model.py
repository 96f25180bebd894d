"""What can be checked without a model is checked before a model or a tower is opened, which takes seconds."""

import json

import pytest

from tests import tiny
from vislang.cli import main
from vislang.models import loading
from vislang.models.flamingo import model as flamingo_model
from vislang.models.flamingo import recipe as flamingo_recipe


@pytest.fixture
def here(pictures, towers, monkeypatch):
    """A folder with pictures, a recipe, records of some kinds, and folders of models that must not be opened."""

    def opened(*arguments, **options):
        raise AssertionError("a model was opened")

    monkeypatch.setattr(loading, "saved_class", opened)
    for module in (flamingo_model, flamingo_recipe):
        monkeypatch.setattr(module, "load_language_tower", opened)
        monkeypatch.setattr(module, "load_vision_tower", opened)
    monkeypatch.chdir(pictures)
    tiny.write_recipe(pictures / "tiny.yaml", *towers)
    for name in ("model", "other"):
        (pictures / name).mkdir()
    boxes = [{"image": f"{n}.png", "text": "it", "box": [0, 0, 9, 9]} for n in range(8)]
    (pictures / "boxes.jsonl").write_text("\n".join(map(json.dumps, boxes)))
    mixed = [*(pictures / "my.jsonl").read_text().splitlines(), *map(json.dumps, boxes)]
    (pictures / "mixed.jsonl").write_text("\n".join(mixed))
    pairs = [{"image": f"{n}.png", "text": f"shape {n}"} for n in range(8)]
    (pictures / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return pictures


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ask model none.png what", "none.png: no such file"),
        ("ask model 0.png what --shot none.png red", "none.png: no such file"),
        ("ask model 0.png what --shot 0.png", "--shot: expected 2 arguments"),
        ("ask model 0.png what --beams 2 --temperature 1", "beam search does not sample"),
        ("ask model 0.png what --options red", "two or more different answers"),
        ("ask model 0.png what --options red,blue --stop x", "--stop: no effect with --options"),
        ("eval model", "give a --task"),
        ("eval model --task nothing", "no task 'nothing'"),
        ("eval model --task vqa", "vqa needs data"),
        ("eval model --task vqa:none", "none: no such folder"),
        ("eval model --task none.jsonl", "none.jsonl: cannot be read"),
        ("eval model --task my.jsonl --split dev", "has no splits"),
        ("eval model --task my.jsonl --limit -1", "--limit is -1; it must not be negative"),
        ("eval model --task my.jsonl --out my.jsonl", "my.jsonl is a file"),
        ("eval model --task my.jsonl --seeds 5", "--seeds: only used together with --shots"),
        ("eval model --task my.jsonl --shots x", "--shots x: write numbers"),
        ("eval model --task my.jsonl --shots=-1", "--shots -1: write numbers"),
        ("eval model --task my.jsonl --shots 0 --orders 0", "--orders is 0; it must be at least 1"),
        ("eval model --task my.jsonl --shots 99", "my.jsonl has 12 examples to draw from"),
        ("eval model --task my.jsonl --shots 0 --way rank --head x", "--way, --head: not used together with --shots"),
        ("eval model --task my.jsonl --shots 0 --shortlist other", "--shortlist: not used together with --shots"),
        ("eval model --task my.jsonl --shortlist other", "--shortlist has no effect: my.jsonl is not a task of pairs"),
        ("eval model --task my.jsonl --shortlist-size 3", "--shortlist-size: only used together with --shortlist"),
        (
            "eval model --task retrieval:pairs.jsonl --shots 2 --select retrieved",
            "all images of retrieval share the same shots",
        ),
        ("embed model none.png", "none.png: no such source"),
        ("embed model 0.png -o none/x.parquet", "there is no folder none"),
        ("embed model 0.png --batch-size 0", "--batch-size is 0"),
        ("search model red none", "none: no such source"),
        ("search model red 0.png --top 0", "--top"),
        ("classify model none --labels red,blue", "none: no such source"),
        ("classify model 0.png --labels red", "--labels"),
        ("classify model 0.png --labels red,blue --template x", "--template"),
        ("explain model none.png what", "none.png: no such file"),
        ("explain model 0.png what -o none/x.html", "there is no folder none"),
        ("probe model --task nothing", "no task 'nothing'"),
        ("probe model --task none.jsonl", "none.jsonl: cannot be read"),
        ("probe model --task my.jsonl", "answers"),
        ("train none.yaml", "none.yaml: no such recipe"),
        ("train tiny.yaml --data none.jsonl", "none.jsonl: cannot be read"),
        ("train tiny.yaml --eval_data none.jsonl", "none.jsonl: cannot be read"),
        ("train tiny.yaml --data mixed.jsonl", "records with several kinds of target: answers (mixed.jsonl:"),
        ("train tiny.yaml --evaluate [nothing]", "no task 'nothing'"),
        ("train tiny.yaml --evaluate [vqa:none]", "none: no such folder"),
        ("train tiny.yaml --train.steps -1", "train.steps is -1"),
        (
            "train tiny.yaml --train.stop_and_go true --train.eval_every 0",
            "train.stop_and_go goes by scores on held-out examples",
        ),
        ("train tiny.yaml --train.lrr 1", "--train.lrr 1: no such option, and no such setting of tiny.yaml"),
        ("train tiny.yaml --out my.jsonl", "my.jsonl is a file"),
        ("train --resume none", "none: not the folder of a run"),
        ("export transformers model my.jsonl", "my.jsonl is a file"),
    ],
)
def test_a_mistake_is_named_before_a_model_is_opened(here, arguments, message, capsys):
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("vislang: ")
    assert len(error.splitlines()) == 1


def test_an_empty_question_is_named_before_a_model_is_opened(here, capsys):
    for arguments in (["ask", "model", "0.png", " "], ["explain", "model", "0.png", ""], ["search", "model", "", "."]):
        assert main(arguments) == 2
        assert "is empty" in capsys.readouterr().err


def test_without_a_mistake_the_model_is_opened(here):
    """Otherwise the tests above would pass whatever is opened."""
    for arguments in ("ask model 0.png what", "eval model --task my.jsonl --shots 0", "train tiny.yaml --out run"):
        with pytest.raises(AssertionError, match="a model was opened"):
            main(arguments.split())
    assert not (here / "run").exists()
