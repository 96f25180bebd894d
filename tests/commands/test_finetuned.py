"""A fine-tuned data2vec model on the command line: asked, evaluated, embedded and exported."""

import json

import pytest
import torch
from transformers import AutoModelForImageClassification

import vislang
from tests import tiny
from vislang.cli import main
from vislang.data.sources import load_source
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.finetuning import FineTuneRecipe
from vislang.models.data2vec.front_ends import ImageConfig, Modalities
from vislang.models.data2vec.heads import HeadConfig
from vislang.models.data2vec.pretraining import Data2VecRecipe


@pytest.fixture
def model(tmp_path) -> str:
    """Its weights are those of its initialisation, its labels those of a file."""
    records = []
    for number in range(8):
        tiny.write_picture(tmp_path / f"{number}.png", number)
        records.append({"image": f"{number}.png", "label": ("red", "blue")[number % 2]})
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, records)))
    torch.manual_seed(0)
    encoder = EncoderConfig(width=16, depth=2, heads=2, mlp_width=32, norm_first=True)
    image = ImageConfig(size=32, patch=8, positions="relative", class_tokens=1)
    Data2VecRecipe("v1", encoder, Modalities(image=image)).build().save(tmp_path / "pretrained")
    made = FineTuneRecipe(str(tmp_path / "pretrained"), head=HeadConfig(norm=True)).build()
    made.fit(load_source(str(tmp_path / "labels.jsonl")))
    made.eval().save(tmp_path / "model")
    return str(tmp_path / "model")


def test_it_is_asked(model, tmp_path, capsys):
    image = str(tmp_path / "0.png")
    assert main(["ask", model, image]) == 0
    answer = capsys.readouterr().out.strip()
    assert main(["ask", model, image, "--options", "red,blue"]) == 0
    first, second = (line.split("  ") for line in capsys.readouterr().out.splitlines())
    assert first[1] == answer
    assert {first[1], second[1]} == {"red", "blue"}
    assert main(["ask", model, image, "what is it?"]) == 2
    assert "contains image and text; this model reads one modality at a time. Give one alone" in capsys.readouterr().err


def test_it_is_evaluated(model, tmp_path, capsys):
    assert main(["eval", model, "--task", str(tmp_path / "labels.jsonl"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["way"], found["n"]) == ("decide", 8)
    assert 0 <= found["figures"]["accuracy"]["value"] <= 1


def test_it_is_embedded(model, tmp_path, capsys):
    assert main(["embed", model, str(tmp_path / "labels.jsonl"), "-o", str(tmp_path / "vectors.parquet")]) == 0
    assert "8 vectors of width 16" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["ask", "embed"])
def test_weights_that_are_no_numbers_answer_nothing(model, tmp_path, verb, capsys):
    """Saved like this, their hash is that of the config."""
    opened = vislang.load(model)
    with torch.no_grad():
        next(opened.parameters()).fill_(torch.nan)
    opened.save(tmp_path / "damaged")
    more = ["-o", str(tmp_path / "vectors.parquet")] if verb == "embed" else []
    assert main([verb, str(tmp_path / "damaged"), str(tmp_path / "0.png"), *more]) == 2
    assert "the model's output is not a number (NaN)" in capsys.readouterr().err
    assert not (tmp_path / "vectors.parquet").exists()


def test_it_is_exported(model, tmp_path, capsys):
    assert main(["export", "transformers", model, str(tmp_path / "theirs")]) == 0
    theirs = AutoModelForImageClassification.from_pretrained(tmp_path / "theirs")
    assert set(theirs.config.label2id) == {"red", "blue"}
