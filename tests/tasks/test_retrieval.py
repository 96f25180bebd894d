"""Retrieval: recall by hand, ties, captions that are the same, training cases, Karpathy's format."""

import json

import numpy as np
import pytest
from PIL import Image as Pillow

from vislang.commands.parts import divide
from vislang.data.jsonl import DataError
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.recipe import Recipe
from vislang.tasks.captioned import captioned
from vislang.tasks.case_sources import read_source
from vislang.tasks.retrieval import (
    Collection,
    four_way,
    karpathy,
    of_documents,
    pairs_of,
    recalls,
    right_pair,
    shortlist,
)


def collection(texts, image_of):
    return Collection([Image(f"{n}.png") for n in range(max(image_of) + 1)], texts, image_of)


def shares(found):
    return {name: value.value for name, value in found.items()}


def test_recall_both_ways_by_hand():
    """Two images with two captions each; the second image's captions rank first and last for it."""
    pairs = collection(["a", "b", "c", "d"], [0, 0, 1, 1])
    scores = np.array([[0.9, 0.1, 0.8, 0.3], [0.2, 0.5, 0.7, 0.4]])
    found = shares(recalls(scores, pairs))
    # Captions: a finds image 0; b finds image 1 first (wrong); c finds image 0 first (wrong); d finds image 1.
    assert found["R@1, text to image"] == 0.5
    assert found["R@5, text to image"] == 1
    # Image 0's best caption is a, rightly; image 1's is c, rightly.
    assert found["R@1, image to text"] == 1


def test_ties_go_against_the_model_and_what_was_not_scored_is_last():
    pairs = collection(["a", "b"], [0, 1])
    assert shares(recalls(np.zeros((2, 2)), pairs))["R@1, text to image"] == 0
    scores = np.array([[-np.inf, 0.5], [-np.inf, 0.4]])
    found = shares(recalls(scores, pairs))
    assert found["R@1, text to image"] == 0
    assert found["R@5, text to image"] == 1


def test_captions_of_the_same_words_count_as_each_others():
    pairs = collection(["A cat", "a cat"], [0, 1])
    assert shares(recalls(np.array([[0.1, 0.1], [0.9, 0.9]]), pairs))["R@1, text to image"] == 1


def cases_of(documents):
    return [right_pair(document) for document in documents]


def test_of_four_options_one_belongs_together():
    documents = [Document([Image(f"{n % 6}.png"), f"word{n % 6} thing kind{n % 2}"], name=str(n)) for n in range(12)]
    said = {}
    for document in documents:
        said.setdefault(document.parts[0], set()).add(document.parts[1])
    cases = four_way(cases_of(documents))
    assert len(cases) == 12
    for case, document in zip(cases, documents, strict=True):
        wrong = [option for number, option in enumerate(case.options) if number != case.target.index]
        assert case.options[case.target.index].parts == document.parts
        for option in wrong:
            image, text = option.parts
            assert text not in said[image]
        assert sum(option.parts[0] == document.parts[0] for option in wrong) == 2
        assert sum(option.parts[1] == document.parts[1] for option in wrong) == 1
    assert {case.target.index for case in cases} == {0, 1, 2, 3}
    assert four_way(cases_of(documents)) == cases
    assert four_way(cases_of(documents), seed=1) != cases


def test_a_hard_negative_shares_a_rare_word():
    texts = ["a red cat", "a red dog", "a big house", "a small tree", "a long road", "a wide lake"]
    documents = [Document([Image(f"{n}.png"), text], name=str(n)) for n, text in enumerate(texts)]
    assert "a red dog" in [option.parts[1] for option in four_way(cases_of(documents))[0].options]


def test_another_image_with_the_same_words_is_no_wrong_option():
    """Each image has a caption of its own and one that three others have."""
    documents = [
        Document([Image(f"{n}.png"), text], name=f"{n}") for n in range(16) for text in (f"own {n}", f"shared {n % 4}")
    ]
    said = {}
    for document in documents:
        said.setdefault(document.parts[0], set()).add(document.parts[1])
    for case in four_way(cases_of(documents)):
        for number, option in enumerate(case.options):
            image, text = option.parts
            assert (text in said[image]) == (number == case.target.index)


def test_wrong_options_come_from_the_same_side_of_a_split(tmp_path):
    """Nothing that is held out may be seen in training, not even as a wrong option."""
    lines = []
    for number in range(20):
        Pillow.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "text": f"thing {number}"}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    cases = read_source(f"pairs:{tmp_path / 'pairs.jsonl'}", "pairs", "train", [])
    parts = divide("pairs", cases, [], Recipe(model=None, data="", hold_out=0.4), four_way)
    learned, held = (
        {option.parts[n] for case in side for option in case.options for n in (0, 1)}
        for side in (parts.learned, parts.test)
    )
    assert len(parts.learned) == 12
    assert len(parts.test) == 8
    assert all(len(case.options) == 4 for case in (*parts.learned, *parts.test))
    assert not learned & held


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(UserError, match="no numbers"):
        recalls(np.full((2, 2), np.nan), Collection([Image("a"), Image("b")], ["a", "b"], [0, 1]))


def test_karpathys_format(tmp_path):
    def image(number, split, filepath=None):
        record = {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentids": [1]}
        record["sentences"] = [{"raw": f"caption {number}.{n}", "tokens": [], "sentid": n} for n in range(2)]
        return {**record, "filepath": filepath} if filepath else record

    records = [image(1, "train"), image(2, "test"), image(3, "restval", "val2014"), image(4, "test")]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": records}))
    (tmp_path / "val2014").mkdir()
    Pillow.new("RGB", (8, 8)).save(tmp_path / "val2014" / "3.jpg")
    test = karpathy(tmp_path, "test")
    assert [image.name.rpartition("/")[2] for image in test.images] == ["2.jpg", "4.jpg"]
    assert test.texts[2:] == ["caption 4.0", "caption 4.1"]
    assert test.image_of == [0, 0, 1, 1]
    train = karpathy(tmp_path, "train")
    assert [image.name.rpartition("/")[2] for image in train.images] == ["1.jpg", "3.jpg"]
    assert train.images[1].decode().size == (8, 8)
    assert of_documents(pairs_of(train)) == train
    with pytest.raises(DataError, match="no image of the split other"):
        karpathy(tmp_path, "other")
    (tmp_path / "dataset_coco.json").write_text("[]")
    with pytest.raises(DataError, match="has no list 'images'"):
        karpathy(tmp_path, "test")


def test_a_file_of_pairs(tmp_path):
    Pillow.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"image": "a.png", "text": "a square"}\n{"image": "none.png", "text": "x"}\n')
    problems = []
    (document,) = captioned(str(path), problems)
    assert document.parts[1] == "a square"
    assert problems[0].line == 2
    path.write_text('{"image": "a.png", "question": "what?", "answer": "a square"}\n')
    with pytest.raises(DataError, match=r"pairs\.jsonl:1: not a pair"):
        captioned(str(path), [])
    with pytest.raises(DataError, match=r"no data set of pairs, and no file\. The data sets are: emoji-google-names"):
        captioned("nothing", [])


def test_a_shortlist_holds_the_best_of_each_image_and_of_each_text():
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.4], [0.7, 0.2, 0.1]])
    chosen = shortlist(scores, 1)
    # Best images of the texts: 0, 1, 1; best texts of the images: 0 each.
    assert chosen.tolist() == [[True, False, False], [True, True, True], [True, False, False]]
    assert shortlist(scores, 50).all()
