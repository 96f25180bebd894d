"""Probes: folds that keep groups together, train and test parts, and a user's labels."""

import json

import pytest
from PIL import Image as Pillow

from vislang.data.fetch import KLETTRES, MANIFEST, STAMPS
from vislang.data.problems import DataError
from vislang.document import Document
from vislang.example import Example, Label
from vislang.tasks.catalogue import open_task
from vislang.tasks.probes import ProbeTask, as_probe


def probe(count: int = 120, groups: int = 30, **more) -> ProbeTask:
    items = [
        Example(str(n), Document([f"item {n}"]), Label(f"label {n % 3}"), group=f"group {n % groups}")
        for n in range(count)
    ]
    return ProbeTask("made up", "", items, **more)


def test_no_group_is_on_both_sides_and_all_items_are_tested_once():
    made = probe()
    tested: list[int] = []
    for train, test in made.folds():
        group = {made.items[n].group for n in test}
        assert not group & {made.items[n].group for n in train}
        inner_train, inner_test = made.inner(train)
        assert sorted([*inner_train, *inner_test]) == sorted(train)
        assert not {made.items[n].group for n in inner_test} & {made.items[n].group for n in inner_train}
        tested += test.tolist()
    assert sorted(tested) == list(range(120))
    assert made.targets[:3] == list(made.labels) == ["label 0", "label 1", "label 2"]


def test_items_are_only_on_the_sides_that_they_may_be_on():
    items = [Example(str(n), Document(["x"]), Label("a"), group=f"{n // 2}") for n in range(60)]
    sides = [[n % 2 == side for n in range(60)] for side in (0, 1)]
    for train, test in ProbeTask("sides", "", items, *sides).folds():
        assert (train % 2 == 0).all()
        assert (test % 2 == 1).all()


def test_each_group_can_be_a_fold():
    folds = list(probe(groups=6, by_group=True).folds())
    assert len(folds) == 6
    assert all(len(test) == 20 for _, test in folds)


def test_the_splits_are_the_sides_of_the_first_fold():
    made = probe()
    train, test = next(made.folds())
    assert [example.id for example in made.examples("test")] == [str(n) for n in test]
    assert [example.id for example in made.support()] == [str(n) for n in train]
    with pytest.raises(DataError, match=r"made up: no split 'dev'\. The splits are train, test"):
        made.examples("dev")


def test_a_users_labels_as_a_probe(tmp_path):
    records = []
    for n in range(12):
        Pillow.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / f"{n}.png")
        records += [{"image": f"{n}.png", "label": "ab"[n % 2]}] * 2
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    made = as_probe(open_task(str(path)))
    assert as_probe(made) is made
    assert (len(made.items), len({item.group for item in made.items})) == (24, 12)
    path.write_text("\n".join(json.dumps({"image": f"{n}.png", "label": "a"}) for n in range(12)))
    with pytest.raises(DataError, match=r"a probe needs at least two labels and 10 different records"):
        as_probe(open_task(str(path)))
    path.write_text(json.dumps({"image": "0.png", "text": "black"}))
    with pytest.raises(DataError, match=r"a probe needs labels, and its targets are of the kind text"):
        as_probe(open_task(str(path)))


def here(data_set, *parts):
    folder = data_set.folder.joinpath(*parts)
    folder.mkdir(parents=True)
    (data_set.folder / MANIFEST).write_text("{}")
    return folder


def test_probes_of_stamps_and_letters():
    folder = here(STAMPS, "tuxpaint-stamps-default", "usr", "share", "tuxpaint", "stamps")
    for category, count in (("animals", 24), ("food", 20), ("space", 3)):
        (folder / category).mkdir()
        for n in range(count):
            (folder / category / f"{n}.txt").write_text(f"{category} {n // 2}\n")
            Pillow.new("RGB", (8, 8), (n, 0, 0)).save(folder / category / f"{n}.png")
            (folder / category / f"{n}_desc_fr.ogg").write_bytes(b"")
    pictures = open_task("stamp-categories")
    # Categories with fewer than 20 stamps are dropped.
    assert (pictures.labels, len(pictures.items), pictures.media) == (("animals", "food"), 44, {"image"})
    spoken = open_task("spoken-stamps-fr")
    assert (spoken.labels, spoken.media) == (("animals", "food"), {"audio"})
    # Stamps with the same caption are one group, so only 12 and 10 count.
    assert open_task("stamp-caption-categories").items == []

    folder = here(KLETTRES, "klettres-data", "usr", "share", "klettres")
    for n in range(6):
        (folder / f"l{n}").mkdir()
        sounds = "".join(f'<sound name="{letter}" file="l{n}/{letter}.ogg"/>' for letter in "ab")
        (folder / f"l{n}" / "sounds.xml").write_text(f"<alphabet>{sounds}</alphabet>")
        for letter in "ab":
            (folder / f"l{n}" / f"{letter}.ogg").write_bytes(b"")
    letters = open_task("spoken-letters")
    assert (letters.labels, len(letters.items), letters.by_group) == (("A", "B"), 12, True)
    assert len(list(letters.folds())) == 6
