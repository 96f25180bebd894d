"""Pairs in tar files."""

import gzip
import io
import json
import os
import tarfile

import pytest

from tests import tiny
from tests.data.test_web_pages import png
from vislang.data.problems import DataError, Problem
from vislang.data.sources import load_source
from vislang.data.tars import read_tar
from vislang.document import Image, Video
from vislang.example import Text


def write(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_pairs_of_images_and_videos(tmp_path):
    film = tiny.write_video(tmp_path / "film.mp4", [0, 200]).read_bytes()
    files = {
        "a/0001.png": png("red"),
        "a/0001.txt": b"a red\nsquare ",
        "0002.mp4": film,
        "0002.json": json.dumps({"caption": "a film", "url": "x"}).encode(),
    }
    path = write(tmp_path / "x.tar", files)
    problems, done = [], []
    first, second = read_tar(path, problems, lambda *p: done.append(p))
    assert (first.target, second.target) == (Text(("a red square",)), Text(("a film",)))
    ((image,), (video,)) = first.media, second.media
    assert isinstance(image, Image)
    assert image.decode().getpixel((3, 3)) == (255, 0, 0)
    assert image.content_hash == Image(png("red")).content_hash
    assert isinstance(video, Video)
    assert len(video.decode()) == 2
    assert image.name == f"{path}: a/0001.png"
    assert first.id == f"{path}: a/0001"
    assert not problems
    assert done == [(1, 2), (2, 2)]


def test_bad_records_are_named_and_left_out(tmp_path):
    files = {
        "1.png": png("red"),
        "2.txt": b"alone",
        "3.png": b"no image",
        "3.txt": b"x",
        "4.png": png("red"),
        "4.txt": b" ",
        "5.png": png("red"),
        "5.json": b'{"title": "x"}',
        "6.png": png("red"),
        "6.jpg": png("blue"),
        "6.txt": b"x",
        "7.png": png("red"),
        "7.json": b"[" * 100_000,
    }
    problems = []
    assert read_tar(write(tmp_path / "x.tar", files), problems) == []
    reported = [str(problem) for problem in problems]
    for key, message in zip(
        "1234567",
        [
            "no .txt or .json",
            "no image or video",
            "not an image",
            "caption is empty",
            "caption is empty",
            "several images or videos in it: jpg, png",
            "recursion",
        ],
        strict=True,
    ):
        assert any(f"x.tar: {key}:" in text and message in text for text in reported), (key, reported)


def test_the_image_of_the_plain_name_is_the_one_that_is_described(tmp_path):
    files = {"1.png": png("red"), "1.mask.png": png("blue"), "1.txt": b"x", "2.left.png": png("blue"), "2.txt": b"y"}
    first, second = read_tar(write(tmp_path / "x.tar", files), [])
    assert first.media[0].decode().getpixel((3, 3)) == (255, 0, 0)
    assert second.media[0].decode().getpixel((3, 3)) == (0, 0, 255)


def test_what_is_no_tar_is_an_error(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(b"no tar")
    with pytest.raises(DataError, match="not an uncompressed tar"):
        read_tar(path, [])
    whole = write(tmp_path / "y.tar", {"1.png": png("red"), "1.txt": b"x"}).read_bytes()
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match="not an uncompressed tar"):
        read_tar(path, [])
    with pytest.raises(DataError, match="contains no records"):
        read_tar(write(tmp_path / "z.tar", {}), [Problem("other", 1, "bad")])
    literal = write(tmp_path / "a[1].tar", {"1.png": png("red"), "1.txt": b"x"})
    assert len(load_source(str(literal))) == 1
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(DataError, match="is a pipe"):
        read_tar(tmp_path / "pipe.tar", [])
