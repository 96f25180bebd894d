"""One resolver for every source: names, files, folders, and errors."""

import io
import json
import os
import tarfile

import pytest
from PIL import Image as Pillow

from tests import tiny
from tests.data.test_fetch import lay_out, png
from tests.tasks.test_benchmarks import vqa_folder
from tests.tasks.test_retrieval import karpathy_folder
from vislang.data.fetch import EMOJI
from vislang.data.problems import DataError
from vislang.data.sets.easy_vqa import easy_vqa
from vislang.data.sources import SOURCES, load_source, splits_of
from vislang.document import Audio, Image, Video
from vislang.example import TARGETS, VERBATIM, Answers, Label, Text


@pytest.fixture
def folder(tmp_path):
    Pillow.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    return tmp_path


def write(folder, *records):
    path = folder / "my.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return str(path)


def test_easy_vqa_is_the_official_one():
    train, test = load_source("easy-vqa"), load_source("easy-vqa", "test")
    assert (len(train), len(test)) == (38_575, 9_673)
    assert len({e.text for e in train + test}) == 107
    assert len({answer for e in train for answer in e.target.scores}) == 13
    assert test[0].media[0].decode().size == (64, 64)
    assert (train[0].text, train[0].target) == ("what is the blue shape?", Answers({"rectangle": 1.0}))
    assert load_source("easy-vqa:test") == test == easy_vqa("test")
    for spec, split in (("easy-vqa", "dev"), ("easy-vqa:dev", None)):
        with pytest.raises(DataError, match=r"no split 'dev'\. The splits are train, test"):
            load_source(spec, split)


def test_the_table_of_sources():
    for name, source in SOURCES.items():
        assert source.kind in (*TARGETS, "none"), name
        assert source.media <= {"text", "image", "several images", "video", "audio"}, name
        assert source.sizes, name
        assert all(size > 300 for size in source.sizes.values()), name
        assert splits_of(name) == source.splits
    assert splits_of("scenes") == ("train", "test", "test-twitter")
    assert splits_of("pairs:stamp-pictures") == splits_of("my.jsonl") == splits_of("easy-vqa:test") == ()
    assert {split: len(easy_vqa(split)) for split in ("train", "test")} == SOURCES["easy-vqa"].sizes


def test_a_packaged_set_has_ids_and_names(monkeypatch, tmp_path):
    record = {"name": "CAT", "unified": "1F408", "image": "1f408.png", "short_name": "cat", "category": "Objects"}
    drawings = [f"emoji-datasource-{v}/package/img/{v}/64/1f408.png" for v in ("google", "twitter")]
    records = json.dumps([{**record, "subcategory": "x"}])
    lay_out(EMOJI, {"emoji-datasource-google/package/emoji.json": records, **dict.fromkeys(drawings, png())})
    (pair,) = load_source("emoji-google-names")
    assert (pair.id, pair.target, len(pair.prompt.parts)) == ("google/1f408", Text(("cat",)), 1)
    assert load_source("pairs:emoji-google-names") == [pair]
    assert [(e.id, e.target) for e in load_source("emoji")] == [("google/1f408", None), ("twitter/1f408", None)]
    (unlabelled,) = load_source("emoji-google-names", targets=False)
    assert (unlabelled.prompt, unlabelled.target) == (pair.prompt, None)
    with pytest.raises(DataError, match=r"emoji: has no splits\. Remove the split 'test'"):
        load_source("emoji", "test")


def test_what_is_not_here_is_fetched(monkeypatch, tmp_path, capsys):
    """The package manager is missing, so the error shows that it is called."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="npm is needed to download it"):
        load_source("emoji")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "fetching emoji-datasource-google 16.0.0\n")


def test_records(folder):
    source = write(folder, {"image": "a.png", "text": "x", "label": "y"}, {"image": "b.png", "text": "x"})
    with pytest.raises(DataError, match=r"my\.jsonl: 1 bad record:\n.*my\.jsonl:2: .*no such file"):
        load_source(source)
    problems = []
    (example,) = load_source(source, "train", problems)
    assert [problem.line for problem in problems] == [2]
    assert example.target == Label("y")
    with pytest.raises(DataError, match="has no splits"):
        load_source(source, "test")


def test_without_targets_media_are_read_alone(folder):
    question = {"image": "a.png", "question": "what?", "answer": "x"}
    parts = {"parts": ["see ", {"image": "a.png"}], "target": "x"}
    examples = load_source(write(folder, question, parts, {"image": "a.png"}, {"text": "prose"}), targets=False)
    image = Image(folder / "a.png")
    assert [e.prompt.parts for e in examples] == [(image,), ("see ", image), (image,), ("prose",)]
    assert [e.target for e in examples] == [None] * 4


def test_pairs_of_a_file(folder):
    (pair,) = load_source("pairs:" + write(folder, {"image": "a.png", "text": "red"}))
    assert (pair.prompt.parts, pair.target) == ((Image(folder / "a.png"),), Text(("red",)))
    with pytest.raises(DataError, match=r"my\.jsonl:1: not a pair"):
        load_source("pairs:" + write(folder, {"image": "a.png", "label": "red"}))


def test_a_folder_and_single_files(folder):
    import soundfile

    (folder / "in").mkdir()
    soundfile.write(folder / "in" / "b.wav", [0.5, -0.5] * 800, 16_000)
    tiny.write_video(folder / "in" / "c.mp4", [0, 200])
    (folder / "in" / "d.txt").write_text("one\n\ntwo\n")
    (folder / "in" / "e.png").write_text("no image")
    (folder / "in" / "f.log").write_text("not read")
    os.mkfifo(folder / "in" / "g.jpg")
    problems, done = [], []
    examples = load_source(str(folder), None, problems, lambda *step: done.append(step))
    assert [example.prompt.parts for example in examples] == [
        (Image(folder / "a.png"),),
        (Audio(folder / "in" / "b.wav"),),
        (Video(folder / "in" / "c.mp4"),),
        ("one\ntwo",),
    ]
    assert [example.id for example in examples][-1] == f"{folder}/in/d.txt, passage 1"
    assert ["e.png" in problem.file or "g.jpg" in problem.file for problem in problems] == [True, True]
    assert done[-1] == (6, 6)
    assert load_source(str(folder / "a.png")) == examples[:1]
    assert load_source(str(folder / "in" / "d.txt")) == examples[3:]


def test_long_prose_is_cut_between_paragraphs(folder):
    (folder / "long.md").write_text("\n\n".join(["word " * 100] * 5))
    assert [len(e.text) for e in load_source(str(folder / "long.md"))] == [1499, 999]


def test_tars_by_a_pattern(folder):
    for name in "ab":
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for member, data in (("1.png", png()), ("1.txt", name.encode())):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    examples = load_source(f"{folder}/*.tar")
    assert [e.target for e in examples] == [Text(("a",)), Text(("b",))]
    assert len({e.id for e in examples}) == 2


def test_pages(folder):
    (folder / "a.html").write_text("<p>words<img src='a.png'>")
    (page,) = load_source(f"pages:{folder}")
    assert (page.prompt.media_side, page.wording, page.target) == ("either", VERBATIM, None)
    assert load_source(f"pages:{folder}", targets=False)[0].prompt == page.prompt
    os.mkfifo(folder / "pipe.jsonl")
    for kind in ("mmc4", "obelics"):
        with pytest.raises(DataError, match="is a pipe or a device"):
            load_source(f"{kind}:{folder}/pipe.jsonl")


def test_benchmarks_in_their_own_format(folder):
    spec = f"vqa:{vqa_folder(folder)}"
    (split,) = splits_of(spec)
    examples = load_source(spec, split)
    assert [e.text for e in examples] == ["what is it?", "is it red?"]
    assert load_source(f"{spec}:{split}") == examples
    assert splits_of(f"{spec}:{split}") == ()
    # By default the training split is read, or else the one to evaluate; training asks for its own.
    assert load_source(spec) == examples
    with pytest.raises(DataError, match=f"no split 'train'. The splits are {split}"):
        load_source(spec, "train")


def test_pairs_in_karpathys_format(folder):
    karpathy_folder(folder)
    assert splits_of(f"retrieval:{folder}") == ("train", "test")
    for task in ("pairs", "retrieval", "captions"):
        examples = load_source(f"{task}:{folder}:test")
        assert [e.id for e in examples] == ["2.jpg", "4.jpg"]
        assert load_source(f"{task}:{folder}", "test") == examples


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", r"nothing: no such source\. A source is the name of a set .*BENCHMARK:FOLDER.*\.jsonl"),
        ("notes.pdf", r"notes\.pdf: a file of no known kind\. A source is "),
        ("none.jsonl", r"none\.jsonl: cannot be read \(No such file"),
        ("none.png", r"none\.png: no such source"),
        ("pages:none", r"pages:none: no such folder"),
        ("mmc4:none", r"none: cannot be read .*Give the pages of mmc4"),
        ("none*.tar", r"none\*\.tar: no such file"),
        ("pipe.txt", r"pipe\.txt: is a pipe or a device"),
        ("empty", r"empty: contains no media or text files\. Supported are \.png"),
        ("latin.txt", r"latin\.txt: cannot be read as UTF-8"),
    ],
)
def test_what_fits_no_reader_is_one_sentence(folder, monkeypatch, spec, message):
    monkeypatch.chdir(folder)
    (folder / "notes.pdf").write_bytes(b"%PDF")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(DataError, match=message):
        load_source(spec)
