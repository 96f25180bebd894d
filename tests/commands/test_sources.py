"""Every verb takes the same sources: one of each kind, by its name, file or folder."""

from __future__ import annotations

import json
import os

import pytest
import torch

from tests import tiny
from tests.evaluate import cells
from tests.models.test_pretraining import recipe as data2vec_recipe
from tests.sources import PICTURES, every_source
from vislang.cli import main
from vislang.tasks.catalogue import open_task

ASKED = ("set", "benchmark", "split of a benchmark", "tars", "questions", "captions", "labels")
"""Kinds of source whose records have a target."""

PAGES = ("pages", "mmc4", "obelics")
BARE = ("folder", "picture", "prose")
KINDS = (*ASKED, *PAGES, *BARE)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the sources and a tiny model of each kind; and the cache with the packaged set."""
    folder, cache = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISLANG_CACHE", str(cache))
        sources = every_source(folder)
    towers = tiny.save_towers(folder, positions=1024)
    cells.flamingo(towers).save(folder / "flamingo")
    cells.dual_encoder(towers, open_task(sources["captions"]).examples("all")).save(folder / "dual")
    cells.vilbert(towers, open_task(sources["questions"]).examples("all")).save(folder / "vilbert")
    torch.manual_seed(0)
    data2vec_recipe("v2", "image").build().save(folder / "data2vec")
    tiny.write_recipe(folder / "flamingo.yaml", *towers, steps=1)
    return folder, cache, sources


@pytest.fixture
def sources(place, monkeypatch):
    folder, cache, sources = place
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VISLANG_CACHE", str(cache))
    return sources


def test_there_is_one_of_each_kind(sources):
    assert set(sources) == set(KINDS)
    assert os.path.isdir(sources["folder"])
    assert sources["prose"].endswith(".txt")


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_shown(sources, kind, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["data", "show", sources[kind], "-n", "2", "-o", str(page)]) == 0
    shown, html = capsys.readouterr().out, page.read_text()
    assert f"{1 if kind == 'picture' else 2} of " in shown
    assert "good records" in shown
    assert ("data:image/webp;base64," in html) == (kind != "prose")


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_checked(sources, kind, capsys):
    assert main(["data", "check", sources[kind], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["source"], found["bad"]) == (1, sources[kind], [])
    assert found["good"] > 0


def test_images_that_official_files_name_in_vain_are_bad(sources, tmp_path, capsys):
    from tests.tasks.official import vqa_folder

    spec = f"vqa:{vqa_folder(tmp_path)}"
    assert main(["data", "check", spec, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["good"] == 0
    assert "COCO_val2014_000000000009.jpg: no such file" in found["bad"][0]["message"]


@pytest.mark.parametrize("kind", [*ASKED, *PAGES])
def test_what_is_asked_and_pages_train_a_flamingo(sources, kind, capsys):
    held = "0.5" if kind == "split of a benchmark" else "0.2"
    arguments = ["train", "flamingo.yaml", "--data", sources[kind], "--dry-run", "--hold_out", held, "--evaluate=[]"]
    assert main(arguments) == 0
    assert "losses text" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [*ASKED, "folder", "picture"])
def test_data2vec_learns_from_the_pictures_of_any_source(sources, kind, tmp_path, capsys):
    """Whatever is asked of them, and where nothing is."""
    recipe = tmp_path / "data2vec.yaml"
    small = "{width: 16, depth: 2, heads: 2, mlp_width: 32}"
    recipe.write_text(
        "model:\n  class_path: vislang.models.data2vec.pretraining.Data2VecRecipe\n"
        f"  init_args: {{encoder: {small}, modalities: {{image: {{size: 32, patch: 8, positions: fixed}}}}}}\n"
        "data: none\nhold_out: 0\ntrain: {steps: 1, batch_size: 4, eval_every: 0}\n"
    )
    assert main(["train", str(recipe), "--data", sources[kind], "--dry-run"]) == 0
    assert "losses" in capsys.readouterr().out


def test_records_without_a_target_are_learned_from_without_labels(sources, tmp_path, capsys):
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({"image": f"{sources['folder']}/{n}.png"}) + "\n" for n in range(4)))
    test_data2vec_learns_from_the_pictures_of_any_source({"bare": str(bare)}, "bare", tmp_path, capsys)
    # A model that learns to write has nothing to learn from them.
    assert main(["train", "flamingo.yaml", "--data", str(bare), "--dry-run"]) == 2
    assert "4 bad records" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ASKED)
def test_what_is_asked_is_scored_with_shots_and_without(sources, kind, capsys):
    assert main(["eval", "flamingo", "--task", sources[kind], "--limit", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["spec"]) == (1, sources[kind])
    assert found["figures"]
    assert (
        main(["eval", "flamingo", "--task", sources[kind], "--limit", "1", "--shots", "1", "--seeds", "1", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["points"][0]["figures"]


@pytest.mark.parametrize("kind", [*PAGES, *BARE])
@pytest.mark.parametrize(
    "arguments", [("eval", "flamingo"), ("eval", "flamingo", "--shots", "1"), ("probe", "data2vec")]
)
def test_where_nothing_is_asked_nothing_is_scored(sources, kind, arguments, capsys):
    assert main([*arguments, "--task", sources[kind]]) == 2
    assert f"vislang: {sources[kind]}: its records have no targets" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ASKED)
def test_labels_are_probed(sources, kind, capsys):
    status = main(["probe", "data2vec", "--task", sources[kind], "--json"])
    captured = capsys.readouterr()
    if kind == "labels":
        assert (status, json.loads(captured.out)["n"]) == (0, PICTURES)
    else:
        assert status == 2
        assert "a probe" in captured.err


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_texts_are_embedded(sources, kind, tmp_path, capsys):
    from pyarrow.parquet import read_table

    # A page has a vector by its last image, which a Flamingo takes; a dual encoder takes one image or one text.
    model = "flamingo" if kind in PAGES else "dual"
    assert main(["embed", model, sources[kind], "-o", str(tmp_path / "vectors.parquet")]) == 0
    table = read_table(tmp_path / "vectors.parquet")
    assert len(table) > 0
    assert table["vector"].type.list_size == 16
    if kind in PAGES:
        assert main(["embed", "dual", sources[kind], "-o", str(tmp_path / "vectors.parquet")]) == 2
        assert "has an image and a text; a vector is for one" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_found(sources, kind, capsys):
    status = main(["search", "dual", "a red shape", sources[kind], "--top", "3", "--json"])
    captured = capsys.readouterr()
    if kind == "prose":
        assert status == 2
        assert "no images found" in captured.err
        return
    found = json.loads(captured.out)
    assert (status, found["schema"], found["text"]) == (0, 1, "a red shape")
    names = [image["image"] for image in found["images"]]
    assert names
    # What is packed into a file of pages is called by its record.
    assert all("mmc4.jsonl:1" in name if kind == "mmc4" else name.endswith(("png", "jpg")) for name in names)


@pytest.mark.parametrize("kind", KINDS)
def test_records_with_an_image_and_a_text_are_explained(sources, kind, tmp_path, capsys):
    page = tmp_path / "page.html"
    status = main(["explain", "vilbert", sources[kind], "-o", str(page)])
    captured = capsys.readouterr()
    if kind in ASKED:
        assert status == 0
        assert "<svg" in page.read_text()
    else:
        assert status == 2
        assert "no record with an image and a text" in captured.err


def test_a_record_is_explained_by_its_id(sources, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["explain", "vilbert", sources["captions"], "--record", "3", "-o", str(page)]) == 0
    assert "a green shape" in page.read_text()
    assert main(["explain", "vilbert", sources["captions"], "--record", "99", "-o", str(page)]) == 2
    assert "no record 99 with an image and a text" in capsys.readouterr().err
    picture = sources["picture"]
    assert main(["explain", "vilbert", picture, "a red shape", "--record", "3", "-o", str(page)]) == 2
    assert "--record: no effect, because a text was given" in capsys.readouterr().err
