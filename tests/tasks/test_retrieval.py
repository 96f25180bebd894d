"""Retrieval: pairs and their sides, choices among four, Karpathy's format."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from vislang.data.problems import DataError
from vislang.data.sources import load_source
from vislang.data.split import hold_out
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example, Label, Text
from vislang.metrics.retrieval import belonging, ranks, recalls_at
from vislang.tasks.catalogue import open_task
from vislang.tasks.retrieval import Retrieval, four_way, karpathy, shortlist, sides


def pair(image, *texts, name="x"):
    return Example(name, Document([Image(image)], name=name), Text(texts))


def captions_by_image(pairs):
    images, texts, image_of = sides(pairs)
    found = {}
    for text, number in zip(texts, image_of, strict=True):
        found.setdefault(images[number], set()).add(text)
    return found


def test_sides_name_each_image_once():
    images, texts, image_of = sides([pair("a.png", "one", "two"), pair("b.png", "three"), pair("a.png", "four")])
    assert images == [Image("a.png"), Image("b.png")]
    assert (texts, image_of) == (["one", "two", "three", "four"], [0, 0, 1, 0])


def test_of_four_choices_one_belongs_together():
    pairs = [pair(f"{n % 6}.png", f"word{n % 6} thing kind{n % 2}", name=str(n)) for n in range(12)]
    captions = captions_by_image(pairs)
    made = four_way(pairs)
    assert len(made) == 12
    for example, original in zip(made, pairs, strict=True):
        assert example.prompt.parts == ()
        assert example.id == original.id
        right = example.choices[example.target.index]
        assert right.parts == (original.media[0], original.target.references[0])
        wrong = [choice.parts for choice in example.choices if choice is not right]
        assert all(text not in captions[image] for image, text in wrong)
        assert sum(image == right.parts[0] for image, _ in wrong) == 2
        assert sum(text == right.parts[1] for _, text in wrong) == 1
    assert {example.target.index for example in made} == {0, 1, 2, 3}
    assert four_way(pairs) == made
    assert four_way(pairs, seed=1) != made


def test_each_caption_of_an_image_becomes_a_choice_of_its_own():
    pairs = [pair(f"{n}.png", f"one {n}", f"two {n}", name=str(n)) for n in range(6)]
    assert [example.id for example in four_way(pairs)[:3]] == ["0 0", "0 1", "1 0"]
    # The same captions as pairs of their own give the same choices.
    alone = [pair(f"{n}.png", f"{word} {n}", name=str(n)) for n in range(6) for word in ("one", "two")]
    assert [e.choices for e in four_way(pairs)] == [e.choices for e in four_way(alone)]


def test_a_hard_negative_shares_a_rare_word():
    texts = ["a red cat", "a red dog", "a big house", "a small tree", "a long road", "a wide lake"]
    pairs = [pair(f"{n}.png", text, name=str(n)) for n, text in enumerate(texts)]
    assert "a red dog" in [choice.parts[1] for choice in four_way(pairs)[0].choices]


def test_choices_do_not_depend_on_the_process():
    """Of words that are equally rare the first one counts, in whatever order a process has the words of a set."""
    code = (
        "from tests.tasks.test_retrieval import pair, four_way\n"
        "texts = [f'{a} {b} {c}' for a in 'xyz' for b in 'klm' for c in 'uvw']\n"
        "pairs = [pair(f'{n}.png', text) for n, text in enumerate(texts)]\n"
        "print([[choice.parts[1] for choice in example.choices] for example in four_way(pairs)])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    assert len(found) == 1


def test_another_image_with_the_same_words_is_no_wrong_choice():
    """Each image has a caption of its own and one that three others have."""
    pairs = [pair(f"{n}.png", text, name=f"{n}") for n in range(16) for text in (f"own {n}", f"shared {n % 4}")]
    captions = captions_by_image(pairs)
    for example in four_way(pairs):
        for number, choice in enumerate(example.choices):
            image, text = choice.parts
            assert (text in captions[image]) == (number == example.target.index)


def test_other_examples_stay_and_pairs_without_a_wrong_choice_are_left_out():
    other = Example("q", Document([Image("a.png"), "what?"]), Label("a"))
    assert four_way([other, pair("a.png", "one")]) == [other]


def test_wrong_choices_come_from_the_same_side_of_a_split(tmp_path):
    """Nothing that is held out may be seen in training, not even as a wrong choice."""
    lines = []
    for number in range(20):
        Pillow.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "text": f"thing {number}"}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    train, held = map(four_way, hold_out(load_source(f"pairs:{tmp_path / 'pairs.jsonl'}"), 0.4))
    assert (len(train), len(held)) == (12, 8)
    assert all(len(example.choices) == 4 for example in (*train, *held))
    parts = [{part for e in side for choice in e.choices for part in choice.parts} for side in (train, held)]
    assert not parts[0] & parts[1]


def karpathy_folder(folder):
    def image(number, split, filepath=None):
        record = {"filename": f"{number}.jpg", "imgid": number, "split": split, "sentids": [1]}
        record["sentences"] = [{"raw": f"caption {number}.{n}", "tokens": [], "sentid": n} for n in range(2)]
        return {**record, "filepath": filepath} if filepath else record

    records = [image(1, "train"), image(2, "test"), image(3, "restval", "val2014"), image(4, "test")]
    (folder / "dataset_coco.json").write_text(json.dumps({"images": records}))
    (folder / "val2014").mkdir()
    Pillow.new("RGB", (8, 8)).save(folder / "val2014" / "3.jpg")
    return folder


def test_karpathys_format(tmp_path):
    test = karpathy(karpathy_folder(tmp_path), "test")
    images, texts, image_of = sides(test)
    assert [image.name.rpartition("/")[2] for image in images] == ["2.jpg", "4.jpg"]
    assert texts[2:] == ["caption 4.0", "caption 4.1"]
    assert image_of == [0, 0, 1, 1]
    train = karpathy(tmp_path, "train")
    assert [example.id for example in train] == ["1.jpg", "3.jpg"]
    assert train[1].media[0].decode().size == (8, 8)
    assert load_source(f"retrieval:{tmp_path}:test") == test
    with pytest.raises(DataError, match=r"no split 'other'\. The splits are train, test"):
        karpathy(tmp_path, "other")
    (tmp_path / "dataset_coco.json").write_text("[]")
    with pytest.raises(DataError, match="has no list 'images'"):
        karpathy(tmp_path, "test")


def test_retrieval_and_captions_are_tasks_of_one_folder(tmp_path):
    karpathy_folder(tmp_path)
    retrieval, captions = (open_task(f"{name}:{tmp_path}") for name in ("retrieval", "captions"))
    assert (retrieval.kind, captions.kind) == ("pairs", "text")
    assert retrieval.default_split == captions.default_split == "test"
    assert captions.support_split == "train"
    examples = retrieval.examples("test")
    assert captions.examples("test") == examples
    assert open_task(f"retrieval:{tmp_path}:train").default_split == "train"
    with pytest.raises(DataError, match=r"no split 'dev'\. The splits are train, test"):
        open_task(f"captions:{tmp_path}", "dev")
    # Scores become ranks, which are stored and scored again.
    scores = np.array([[0.9, 0.1, 0.8, 0.3], [0.2, 0.5, 0.7, 0.4]])
    ranked = retrieval.ranked(examples, scores)
    images, texts, image_of = sides(examples)
    expected = recalls_at(*ranks(scores, belonging(texts, image_of, len(images))))
    assert retrieval.score(examples, ranked) == expected
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(prediction.as_record()) + "\n" for prediction in ranked[::-1]))
    assert retrieval.score(examples, retrieval.read_predictions(path, examples)) == expected
    path.write_text("".join(json.dumps(prediction.as_record()) + "\n" for prediction in ranked[1:]))
    with pytest.raises(DataError, match="no prediction for 1 of 6 records: text 0"):
        retrieval.read_predictions(path, examples)
    with pytest.raises(UserError, match="'a' is not a rank"):
        retrieval.score(examples, [type(ranked[0])("text 0", "a")])


def test_a_subset_takes_images_with_all_their_captions():
    pairs = [pair(f"{n % 8}.png", f"caption {n}", name=str(n)) for n in range(16)]
    task = Retrieval("pairs", "", {"all": lambda problems, progress: pairs}, "all")
    kept = task.subset(pairs, 3, 0)
    assert len(kept) == 6
    assert len({example.media for example in kept}) == 3
    assert kept == [example for example in pairs if example in kept]
    assert task.subset(pairs, 0, 0) == task.subset(pairs, 8, 0) == pairs


def test_captions_of_one_image_are_references_of_one_example(tmp_path):
    Pillow.new("RGB", (8, 8)).save(tmp_path / "a.png")
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"image": "a.png", "text": "a square"}\n{"image": "a.png", "text": "black"}\n')
    (example,) = open_task(f"captions:{path}").examples("all")
    assert example.target == Text(("a square", "black"))
    assert len(open_task(f"retrieval:{path}").examples("all")) == 2
    problems = []
    path.write_text('{"image": "a.png", "text": "a square"}\n{"image": "none.png", "text": "x"}\n')
    assert len(open_task(f"retrieval:{path}", problems=problems).examples("all")) == 1
    assert problems[0].line == 2
    path.write_text('{"image": "a.png", "question": "what?", "answer": "a square"}\n')
    for task, fault in (("retrieval", "not a pair"), ("captions", "not a caption")):
        with pytest.raises(DataError, match=rf"pairs\.jsonl:1: {fault}"):
            open_task(f"{task}:{path}")


def test_a_shortlist_holds_the_best_of_each_image_and_of_each_text():
    scores = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.4], [0.7, 0.2, 0.1]])
    chosen = shortlist(scores, 1)
    # Best images of the texts: 0, 1, 1; best texts of the images: 0 each.
    assert chosen.tolist() == [[True, False, False], [True, True, True], [True, False, False]]
    assert shortlist(scores, 50).all()
