import json

import pytest
from PIL import Image as Pillow
from vislang.tasks.data_sets import split_data
from vislang.tasks.easy_vqa import easy_vqa

from vislang.data.jsonl import DataError, read_jsonl
from vislang.data.split import hold_out
from vislang.document import Document, Image
from vislang.errors import UserError


def test_easy_vqa_is_the_official_one():
    train, test = easy_vqa("train"), easy_vqa("test")
    assert (len(train), len(test)) == (38_575, 9_673)
    assert len({e.question for e in train + test}) == 107
    assert len({e.target for e in train}) == 13
    assert test[0].image.decode().size == (64, 64)
    assert (train[0].question, train[0].target) == ("what is the blue shape?", "rectangle")
    with pytest.raises(ValueError, match="not 'dev'"):
        easy_vqa("dev")


def test_the_test_split_is_never_trained_on():
    split = split_data("easy-vqa", None, 0.05)
    train, held, test = ({e.image for e in part} for part in (split.train, split.validation, split.test))
    assert not train & held
    assert not train & test
    assert not held & test
    assert 0.03 < len(held) / (len(train) + len(held)) < 0.07


@pytest.fixture
def file(tmp_path):
    lines = []
    for number in range(40):
        Pillow.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines += [json.dumps({"image": f"{number}.png", "text": f"{word} {number}"}) for word in ("one", "two")]
    path = tmp_path / "my.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_records_that_share_an_image_stay_together(file):
    split = split_data(str(file), None, 0.3)
    assert split.validation
    assert not {e.image for e in split.train} & {e.image for e in split.validation}
    assert split.test == split.validation
    assert len(split.train) + len(split.validation) == 80


def test_the_side_does_not_depend_on_the_order(file):
    examples = read_jsonl(file).examples
    assert hold_out(examples, 0.3)[1] == hold_out(examples[::-1], 0.3)[1][::-1]


def test_what_hangs_together_by_images_stays_on_one_side(tmp_path):
    """Pages 0 and 1 share an image, 1 and 2 another; the rest have two of their own."""
    images = []
    for number in range(40):
        path = tmp_path / f"{number}.png"
        Pillow.new("RGB", (4, 4), (number, 0, 0)).save(path)
        images.append(Image(path))
    pages = [Document(images[n : n + 2], name=str(n)) for n in (0, 1, 2)]
    pages += [Document(images[n : n + 2], name=str(n)) for n in range(4, 40, 2)]
    for share in (0.1, 0.3, 0.5, 0.8):
        sides = hold_out(pages, share)
        shown = [{medium.content_hash for page in side for medium in page.media} for side in sides]
        assert not shown[0] & shown[1]
        # Three pages that hang together count as one.
        assert len({"0" if page.name in ("0", "1", "2") else page.name for page in sides[1]}) == round(share * 19)


def test_bad_records_are_refused_unless_skipped_and_then_counted(file):
    file.write_text(file.read_text() + '\n{"image": "none.png", "text": "x"}\nnonsense\n')
    with pytest.raises(DataError, match=r"2 bad records:\n.*my\.jsonl:81: .*no such file"):
        split_data(str(file), None, 0.1)
    split = split_data(str(file), None, 0.1, skip_bad_records=True)
    assert [problem.line for problem in split.problems] == [81, 82]
    assert len(split.train) + len(split.validation) == 80


def test_what_cannot_be_split_is_told(file, tmp_path):
    with pytest.raises(DataError, match="neither a file nor a task"):
        split_data("easy-vqua", None, 0.1)
    with pytest.raises(UserError, match="hold_out is 1"):
        split_data(str(file), None, 1.0)


def test_the_side_does_not_depend_on_where_the_files_lie(file, tmp_path_factory):
    import shutil

    elsewhere = tmp_path_factory.mktemp("moved") / "copy"
    shutil.copytree(file.parent, elsewhere)
    here, there = (split_data(str(path), None, 0.3) for path in (file, elsewhere / file.name))
    assert [e.target for e in here.validation] == [e.target for e in there.validation]


def test_a_tiny_file_still_has_something_to_be_scored_on(file):
    file.write_text("\n".join(file.read_text().splitlines()[:4]))
    split = split_data(str(file), None, 0.05)
    assert (len(split.train), len(split.test)) == (2, 2)
    file.write_text(file.read_text().splitlines()[0])
    with pytest.raises(DataError, match="nothing left to score on"):
        split_data(str(file), None, 0.05)
