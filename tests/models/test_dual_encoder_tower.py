"""Uses of a dual encoder: as the tower of a Flamingo, to retrieve its shots, for search and for classification."""

import json

import pytest
import torch

import vislang
from tests import tiny
from tests.models.test_dual_encoder import dual, model_of, pairs  # noqa: F401
from vislang.cli import main
from vislang.document import Document
from vislang.evaluate.few_shot_baselines import similarities
from vislang.models.dual_encoder.model import ContrastiveEncoder
from vislang.models.dual_encoder.tower import DualEncoderTower
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.models.towers.packaged import TowerError
from vislang.models.towers.vision import load_vision_tower


@pytest.fixture
def untrained(towers, pairs, tmp_path):  # noqa: F811
    model = model_of(towers, pairs).eval()
    model.save(tmp_path / "dual")
    return model, str(tmp_path / "dual")


@torch.no_grad()
def test_the_tower_gives_what_the_encoder_makes_of_the_cells(untrained, pairs):  # noqa: F811
    model, folder = untrained
    tower = load_vision_tower(folder)
    assert isinstance(tower, DualEncoderTower)
    image = pairs[0].media[0]
    batch = model.collate(pairs[:1])
    read = model.network.image.read(batch.features, batch.boxes)
    cells = tower(tower.preprocess(image.decode())[None])
    # Cached regions are rounded to half precision.
    torch.testing.assert_close(cells, read[:, 1:], atol=5e-3, rtol=0)
    assert cells.shape[-1] == tower.width == 32
    assert load_vision_tower(folder, tower.image_size).fingerprint == tower.fingerprint
    with pytest.raises(TowerError, match="was trained at"):
        load_vision_tower(folder, tower.image_size * 2)


def test_it_is_a_vision_tower_of_flamingo_and_another_one_is_an_error(untrained, towers, pairs, tmp_path):  # noqa: F811
    model, folder = untrained
    flamingo = FlamingoRecipe(towers[0], folder, bridge=FlamingoConfig(**tiny.BRIDGE)).build().eval()
    image = pairs[0].media[0]
    document = Document([image, "what color?"], target="red")
    score = flamingo.score([document])[0].log_likelihood
    flamingo.save(tmp_path / "flamingo")
    assert vislang.load(tmp_path / "flamingo").score([document])[0].log_likelihood == pytest.approx(score, abs=1e-5)
    with torch.no_grad():
        next(iter(model.network.image.parameters())).add_(1e-2)
    model.save(tmp_path / "dual")
    with pytest.raises(TowerError, match="is not the one that this bridge was trained with"):
        vislang.load(tmp_path / "flamingo")


def test_it_chooses_shots(dual, pairs):  # noqa: F811
    rows = similarities(vislang.load(dual), pairs[:4], pairs[4:])
    for query, row in zip(pairs[:4], rows, strict=True):
        assert pairs[4 + int(row.argmax())].target == query.target


def test_an_evaluation_retrieves_shots_by_it(dual, pairs, tmp_path, capsys, monkeypatch):  # noqa: F811
    """With --selector, images are compared by the dual encoder alone, which finds those of the same colour."""
    flamingo = tiny.flamingo(tiny.save_towers(tmp_path / "towers", positions=1024))
    flamingo.save(tmp_path / "flamingo")
    records = [
        {"image": pair.media[0].name, "text": "what color?", "label": pair.target.references[0].split()[1]}
        for pair in pairs
    ]
    (tmp_path / "my.jsonl").write_text("\n".join(map(json.dumps, records)))
    task = ["eval", str(tmp_path / "flamingo"), "--task", str(tmp_path / "my.jsonl"), "--shots", "2", "--draws", "1"]
    embedded = []
    embed = ContrastiveEncoder.embed

    def counted(self, documents, *args, **kwargs):
        embedded.extend(documents)
        return embed(self, documents, *args, **kwargs)

    monkeypatch.setattr(ContrastiveEncoder, "embed", counted)
    monkeypatch.delattr(Flamingo, "embed")
    assert main([*task, "--select", "retrieved", "--selector", dual, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(embedded) == len(pairs)
    # Chance is a quarter.
    assert found["baselines"]["answer_of_the_most_similar_image"]["accuracy"]["value"] > 0.8
    assert {point["select"] for point in found["points"] if point["variant"] == "plain"} == {"retrieved"}


def test_search_and_classes(dual, pairs, tmp_path, capsys):  # noqa: F811
    caption = pairs[0].target.references[0]
    assert main(["search", dual, caption, str(tmp_path), "--top", "4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["text"]) == (1, caption)
    found = answer["images"]
    right = {pair.media[0].name for pair in pairs if pair.target.references[0] == caption}
    assert {each["image"] for each in found} == right
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)
    colours = list(dict.fromkeys(pair.target.references[0].split()[1] for pair in pairs))
    labels = ",".join(colours)
    assert main(["classify", dual, str(tmp_path), "--labels", labels, "--template", "a {} shape", "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["schema"] for each in answers} == {1}
    truth = {pair.media[0].name: pair.target.references[0].split()[1] for pair in pairs}
    assert sum(each["label"] == truth[each["image"]] for each in answers) >= 14
    assert main(["search", dual, caption, str(tmp_path)]) == 0
    assert main(["classify", dual, str(tmp_path), "--labels", labels]) == 0


def test_weights_that_are_no_numbers_find_nothing(untrained, tmp_path, capsys):
    """Saved like this, their hash is that of the config."""
    model = vislang.load(untrained[1])
    with torch.no_grad():
        next(model.network.image.parameters()).fill_(torch.nan)
    model.save(tmp_path / "damaged")
    for arguments in (["search", str(tmp_path / "damaged"), "red"], ["classify", str(tmp_path / "damaged")]):
        assert main([*arguments, str(tmp_path), *(["--labels", "a,b"] if "classify" in arguments else [])]) == 2
        assert "the model's output is not a number (NaN)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "MODEL", "x", "EMPTY"], "contains no media or text files"),
        (["search", "MODEL", " ", "PICTURES"], "the search text is empty"),
        (["search", "MODEL", "x", "PICTURES", "--top", "0"], "--top is 0; it must be at least 1"),
        (["classify", "MODEL", "PICTURES", "--labels", "one"], "two or more labels"),
        (["classify", "MODEL", "PICTURES", "--labels", "a,b", "--template", "x"], "once, in the position of the label"),
        (["search", "none", "x", "PICTURES"], "no such folder"),
    ],
)
def test_mistakes_are_one_line_errors(untrained, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    names = {"MODEL": untrained[1], "EMPTY": str(tmp_path / "empty"), "PICTURES": str(tmp_path)}
    assert main([names.get(word, word) for word in arguments]) == 2
    assert message in capsys.readouterr().err
