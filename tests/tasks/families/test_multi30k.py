"""Multi30k."""

import gzip
from functools import partial

import pytest

from tests.tasks.families.family import Family, scored
from tests.tasks.official import draw, write
from vislang.data.problems import DataError
from vislang.example import Prediction

ENGLISH = ("Two dogs run.", "A red cat sits on a mat.", "A man rides a horse.")
OTHER = {
    "de": ("Zwei Hunde laufen.", "Eine rote Katze sitzt auf einer Matte.", "Ein Mann reitet auf einem Pferd."),
    "fr": ("Deux chiens courent.", "Un chat rouge est assis sur un tapis.", "Un homme monte un cheval."),
    "cs": ("Dva psi běží.", "Červená kočka sedí na podložce.", "Muž jede na koni."),
}


def folder(path, language):
    """Three sentences for each split, as in the repository; the English of one split is not packed."""
    root = path / "data" / "task1"
    (root / "raw").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test_2018_flickr")):
        names = [f"{100 * number + n}.jpg" for n in range(3)]
        for name in names:
            draw(path / "images" / name, int(name.removesuffix(".jpg")))
        write(root / "image_splits" / f"{split}.txt", "".join(f"{name}#{n}\n" for n, name in enumerate(names)))
        for own, sentences in (("en", ENGLISH), (language, OTHER[language])):
            if own != "en" and split.startswith("test"):
                continue
            text = "".join(f"{sentence}\n" for sentence in sentences)
            if split == "val":
                write(root / "raw" / f"{split}.{own}", text)
            else:
                (root / "raw" / f"{split}.{own}.gz").write_bytes(gzip.compress(text.encode()))


def family(language):
    splits = ("train", "val", "test_2018_flickr")
    return Family(
        f"multi30k-{language}",
        partial(folder, language=language),
        ("sent.txt", "".join(f"{sentence}\n" for sentence in OTHER[language][::-1])),
        f"multi30k-{language}.txt",
        {"flamingo": "generate", "dual encoder": "match"},
        None,
        (),
        tuple(f"data/task1/image_splits/{split}.txt" for split in splits),
    )


GERMAN, FRENCH, CZECH = map(family, ("de", "fr", "cs"))


def test_bleu_and_chrf(tmp_path):
    task = GERMAN.opened(tmp_path)
    assert (task.default_split, task.support_split) == ("val", "train")
    right = dict(zip("012", OTHER["de"], strict=True))
    assert scored(task, right) == pytest.approx({"bleu": 1, "chrf": 1})
    found = scored(task, {**right, "0": "Zwei Katzen laufen.", "2": None})
    # Of 12 words and full stops 11 are right; of 10 pairs of neighbours 8, of 8 triples 6, of 6 quadruples 5. The
    # references have 19.
    brevity = 2.718281828459045 ** (1 - 19 / 12)
    assert found["bleu"] == pytest.approx(brevity * (11 / 12 * 8 / 10 * 6 / 8 * 5 / 6) ** 0.25)
    assert 0.4 < found["chrf"] < 0.7
    examples = task.examples("val")
    items = task.score_each(examples, [Prediction(n, text) for n, text in right.items()])
    assert items.scores == pytest.approx([1, 1, 1])
    assert {example.target for example in task.examples("test_2018_flickr")} == {None}


def test_files_that_are_not_parallel_or_damaged_are_named(tmp_path):
    task = GERMAN.opened(tmp_path)
    root = tmp_path / "data" / "task1"
    for path, message in (
        (root / "raw" / "val.de", "val.de: 2 lines for the 3 of val.en"),
        (root / "image_splits" / "val.txt", "val.txt: 2 lines for the 3 of val.en"),
    ):
        whole = path.read_text()
        path.write_text(whole.rstrip("\n").rpartition("\n")[0] + "\n")
        with pytest.raises(DataError, match=message):
            task.examples("val")
        path.write_text(whole)
    packed = root / "raw" / "train.de.gz"
    whole = packed.read_bytes()
    for content in (whole[:-10], b"text", whole[:20] + b"xx" + whole[22:]):
        packed.write_bytes(content)
        with pytest.raises(DataError, match=r"train\.de\.gz: not a gzip file, or cut off"):
            task.examples("train")
    packed.unlink()
    with pytest.raises(DataError, match=r"train\.de\.gz: no such file\. Give the translations of train\.en\.gz"):
        task.examples("train")
    (tmp_path / "sent.txt").write_text("ein Satz\n")
    with pytest.raises(DataError, match=r"sent\.txt: 1 lines for 3 sentences"):
        task.read_predictions(tmp_path / "sent.txt", task.examples("val"))
    (root / "raw" / "val.en.gz").write_bytes(whole)
    with pytest.raises(DataError, match="the split val is there twice, packed and unpacked"):
        type(task)(tmp_path)
