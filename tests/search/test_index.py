"""``vislang index``: new, changed and deleted files; interruptions; bad files; several processes; mistakes."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from tests.models.test_vilbert_pretraining import picture
from tests.train.several import free_port, start, together
from vislang.cli import main
from vislang.document import Image
from vislang.errors import UserError
from vislang.search import build as building
from vislang.search.build import build, read_skipped
from vislang.search.embedder import Embedder, open_embedder
from vislang.search.index import Index
from vislang.search.nearest import similarities


class Counting:
    """The images that an embedder was given, and an interruption after so many of them."""

    def __init__(self, monkeypatch, most: int = 10**6):
        self.names: list[str] = []
        self.most = most
        whole = Embedder.images

        def images(embedder, images):
            if len(self.names) >= self.most:
                raise KeyboardInterrupt
            self.names += [image.source.name for image in images]
            return whole(embedder, images)

        monkeypatch.setattr(Embedder, "images", images)


def names_of(index: Index) -> list[str]:
    return [row.name for row in index.all_rows()]


def test_vectors_are_those_of_the_model_in_the_order_of_names(photos, dual, tmp_path):
    embedder = open_embedder(dual)
    built = build(photos, tmp_path / "index", embedder, batch_size=5)
    assert (built.count, built.embedded, built.deleted, built.skipped, built.changed) == (12, 12, 0, 0, True)
    index = Index(tmp_path / "index")
    assert names_of(index) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert isinstance(index.vectors, np.memmap)
    assert index.vectors.dtype == np.float16
    expected = embedder.images([Image(index.image(row)) for row in index.all_rows()])
    np.testing.assert_allclose(index.vectors, expected, atol=2e-3)
    assert [index.number_of(name) for name in names_of(index)] == list(range(12))
    assert index.number_of("none.png") is None
    assert not (tmp_path / "index" / "unfinished").exists()


def test_only_new_and_changed_files_are_embedded(photos, dual, tmp_path, monkeypatch):
    out, embedder = tmp_path / "index", open_embedder(dual)
    build(photos, out, embedder)
    counting = Counting(monkeypatch)
    assert not build(photos, out, embedder).changed
    assert counting.names == []
    assert Index(out).generation == 1
    picture(photos / "new.png", "red", 3)
    picture(photos / "red-0.png", "blue", 2)
    (photos / "more" / "red-8.png").unlink()
    shutil.copy(photos / "red-4.png", photos / "copy.png")
    os.utime(photos / "red-4.png", (1, 1))
    built = build(photos, out, embedder)
    assert sorted(counting.names) == ["new.png", "red-0.png"]
    assert (built.count, built.embedded, built.deleted) == (13, 2, 1)
    # What was brought up to date equals what is made anew.
    build(photos, tmp_path / "anew", embedder)
    index, anew = Index(out), Index(tmp_path / "anew")
    assert list(index.all_rows()) == list(anew.all_rows())
    np.testing.assert_allclose(index.vectors, anew.vectors, atol=2e-3)
    assert not list(out.glob("*-1.*"))


def test_an_interrupted_run_continues_and_the_index_is_the_old_one_until_then(photos, dual, tmp_path, monkeypatch):
    out, embedder = tmp_path / "index", open_embedder(dual)
    with pytest.MonkeyPatch.context() as patch:
        Counting(patch, most=8)
        with pytest.raises(KeyboardInterrupt):
            build(photos, out, embedder, batch_size=4)
    with pytest.raises(UserError, match="was not finished"):
        Index(out)
    (part,) = (out / "unfinished").glob("*.safetensors")
    (out / "unfinished" / "damaged.safetensors").write_bytes(part.read_bytes()[:-9])
    counting = Counting(monkeypatch)
    build(photos, out, embedder, batch_size=4)
    assert len(counting.names) == 4
    index = Index(out)
    assert index.count == 12
    expected = embedder.images([Image(index.image(row)) for row in index.all_rows()])
    np.testing.assert_allclose(index.vectors, expected, atol=2e-3)
    # Interrupted while the next generation is written: the first one is still in use.
    picture(photos / "new.png", "red", 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building.Known, "vectors", interrupted_vectors)
        with pytest.raises(KeyboardInterrupt):
            build(photos, out, embedder)
    assert Index(out).count == 12
    assert build(photos, out, embedder).count == 13
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith("run.")) == [
        *("index.json", "rows-2.jsonl", "skipped-2.jsonl", "starts-2.npy", "vectors-2.npy")
    ]


def interrupted_vectors(known, sources):
    if len(sources) == 1:
        yield np.zeros((1, 8), np.float16)
        return
    raise KeyboardInterrupt


def test_files_that_cannot_be_read_are_skipped_and_listed(photos, dual, tmp_path, capsys):
    (photos / "torn.png").write_bytes((photos / "red-0.png").read_bytes()[:60])
    (photos / "text.jpg").write_text("not an image")
    (photos / "gone.png").symlink_to(photos / "nowhere")
    os.mkfifo(photos / "pipe.png")
    assert main(["index", str(photos), "-o", str(tmp_path / "index"), "--model", dual, "--batch-size", "4"]) == 0
    said = capsys.readouterr()
    assert "12 images" in said.out
    assert "4 skipped (listed in" in said.out
    assert "skipped: text.jpg: " in said.err
    listed = {each["name"]: each["reason"] for each in read_skipped(Index(tmp_path / "index"))}
    assert set(listed) == {"torn.png", "text.jpg", "gone.png", "pipe.png"}
    assert "not a regular file" in listed["pipe.png"]
    # A file that was repaired is found, without another model being named.
    picture(photos / "torn.png", "red", 2)
    assert main(["index", str(photos), "-o", str(tmp_path / "index")]) == 0
    assert "13 images" in capsys.readouterr().out


def test_a_vision_tower_gives_its_mean_features(photos, towers, tmp_path):
    embedder = open_embedder(towers[1])
    assert not embedder.reads_texts
    build(photos, tmp_path / "index", embedder)
    vectors = np.asarray(Index(tmp_path / "index").vectors, dtype=np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    best = similarities(Index(tmp_path / "index").vectors, embedder.images([Image(photos / "red-4.png")])[0]).argmax()
    assert names_of(Index(tmp_path / "index"))[best] == "red-4.png"


def share(rank: int, count: int, port: int, photos, out, dual) -> None:
    with together(rank, count, port) as processes:
        built = build(photos, out, open_embedder(dual), batch_size=3, processes=processes)
        assert (built.count, built.embedded, built.skipped) == (12, 12, 1)


def test_two_processes_make_the_index_of_one(photos, dual, tmp_path):
    (photos / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    start(2, share, 2, free_port(), photos, tmp_path / "two", dual)
    build(photos, tmp_path / "one", open_embedder(dual), batch_size=3)
    one, two = Index(tmp_path / "one"), Index(tmp_path / "two")
    assert list(one.all_rows()) == list(two.all_rows())
    assert read_skipped(one) == read_skipped(two)
    np.testing.assert_allclose(one.vectors, two.vectors, atol=2e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["EMPTY", "-o", "NEW"], "contains no images (.png"),
        (["none", "-o", "NEW"], "none: no such folder"),
        (["PHOTOS", "-o", "NEW", "--model", "nothing"], "nothing"),
        (["PHOTOS", "-o", "NEW", "--model", "LANGUAGE"], "language"),
        (["PHOTOS", "-o", "NEW", "--batch-size", "0"], "--batch-size is 0"),
        (["PHOTOS", "-o", "INDEX", "--model", "TOWER"], "is another model"),
        (["OTHER", "-o", "INDEX"], "is an index of"),
        (["PHOTOS", "-o", "OTHER"], "is not empty and contains no index"),
        (["TORN", "-o", "NEW", "--model", "DUAL"], "none of 1 images can be read"),
    ],
)
def test_mistakes_are_one_line_errors(photos, dual, towers, tmp_path, capsys, words, message):
    build(photos, tmp_path / "index", open_embedder(dual))
    before = (tmp_path / "index" / "index.json").read_bytes()
    for name in ("empty", "other", "torn"):
        (tmp_path / name).mkdir()
    picture(tmp_path / "other" / "a.png", "red", 1)
    (tmp_path / "torn" / "a.png").write_bytes(b"x")
    names = {name.upper(): str(tmp_path / name) for name in ("empty", "other", "torn", "index", "photos", "new")}
    names |= {"DUAL": dual, "TOWER": towers[1], "LANGUAGE": towers[0]}
    assert main(["index", *(names.get(word, word) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert (tmp_path / "index" / "index.json").read_bytes() == before


def test_names_that_are_not_utf8_are_kept(photos, dual, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(photos / "red-4.png", photos / name)
    build(photos, tmp_path / "index", open_embedder(dual))
    index = Index(tmp_path / "index")
    number = index.number_of(name)
    assert number is not None
    assert index.image(index.rows([number])[0]).is_file()
    assert json.loads((tmp_path / "index" / "index.json").read_text())["count"] == 13
