"""Translations of captions and names: the arms have the same records, and no image of a test is in training."""

import json

import pytest

from tests.data.composed import png
from tests.data.test_fetch import lay_out
from vislang.data.fetch import EMOJI, EMOJI_LANGUAGES, EMOJI_NAMES, STAMPS
from vislang.data.sets.translations import ARMS, LANGUAGES, SPLITS
from vislang.data.sources import SOURCES, TRANSLATIONS, load_source
from vislang.example import Prediction, Text
from vislang.tasks.catalogue import TASKS, open_task

SETS = ("stamp-translation", "emoji-translation")


@pytest.fixture(autouse=True)
def few():
    stamps, folder = {}, "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/animals"
    for number in range(40):
        # Every caption is that of two stamps.
        caption = f"Thing {number // 2}."
        lines = [
            caption,
            f"de.utf8=Das ist das Ding {number // 2}.",
            f"en_GB.utf8={caption}",
            f"ca@valencia.utf8=Cosa {number}.",
        ]
        stamps[f"{folder}/{number}.txt"] = "\n".join([*lines, "ja.utf8=もの"])
        stamps[f"{folder}/{number}.png"] = png((number, 0, 0))
    stamps[f"{folder}/drawn.txt"] = "Drawn as SVG only.\nde.utf8=Nur als SVG."
    lay_out(STAMPS, stamps)
    records, files = [], {}
    names: dict[str, list] = {code: [] for code in ("en", *EMOJI_LANGUAGES)}
    for number in range(60):
        code = f"{0x1F400 + number:X}"
        subgroup = ("animal-mammal", "country-flag", "family")[number % 3]
        record = {"name": f"THING {number}", "unified": f"{code}-FE0F", "image": f"{code.lower()}.png"}
        records.append({**record, "short_name": "x", "category": "Objects", "subcategory": subgroup})
        for vendor in ("google", "twitter"):
            colour = (number, 0, 255 if vendor == "google" else 0)
            files[f"emoji-datasource-{vendor}/package/img/{vendor}/64/{code.lower()}.png"] = png(colour)
        for language, labels in names.items():
            labels.append({"hexcode": code, "label": f"{language} {number}"})
    lay_out(EMOJI, {"emoji-datasource-google/package/emoji.json": json.dumps(records), **files})
    named = {f"emojibase-data/package/{code}/compact.json": json.dumps(own) for code, own in names.items()}
    lay_out(EMOJI_NAMES, named)


@pytest.mark.parametrize("name", SETS)
def test_arms_have_the_same_records_and_differ_in_what_is_given(name):
    for split in SPLITS:
        both, text, image = (load_source(f"{name}{arm}", split) for arm in ARMS)
        assert len(both) > 5
        for one, words, picture in zip(both, text, image, strict=True):
            assert one.id == words.id == picture.id
            assert one.target == words.target == picture.target
            assert one.prompt.parts == (*picture.prompt.parts, *words.prompt.parts)
            assert (len(words.media), picture.text) == (0, "")
            language = LANGUAGES[one.id.rpartition(", ")[2]]
            assert one.wording.question == words.wording.question == f"Translate into {language}: {{text}}"
            assert picture.wording.question == f"What is this in {language}?"
    assert {SOURCES[f"{name}{arm}"].media for arm in ARMS} == {frozenset(own) for own in ARMS.values()}


@pytest.mark.parametrize("name", SETS)
def test_splits_share_no_image_and_no_text(name):
    splits = [load_source(name, split) for split in SPLITS]
    for found in (
        [{example.media[0].content_hash for example in own} for own in splits],
        [{example.text for example in own} for own in splits],
    ):
        assert sum(map(len, found)) == len(set().union(*found))


def test_languages_are_those_of_the_packages_without_varieties():
    stamps = [example for split in SPLITS for example in load_source("stamp-translation", split)]
    assert len(stamps) == 40 * 2
    assert {example.id.rpartition(", ")[2] for example in stamps} == {"de", "ja"}
    ours = [e for e in stamps if e.text == "Thing 7." and e.id.endswith("de")]
    assert [example.target for example in ours] == [Text(("Das ist das Ding 7.",))] * 2
    names = [example for split in SPLITS for example in load_source("emoji-translation", split)]
    codes = {example.id.rpartition(", ")[2] for example in names}
    assert len(names) == 20 * len(EMOJI_LANGUAGES)
    assert len(codes) == len(EMOJI_LANGUAGES)
    assert codes <= LANGUAGES.keys()
    (chinese,) = (e for e in names if e.text == "en 0" and e.id.endswith(", zh_CN"))
    assert chinese.target == Text(("zh 0",))


def test_emoji_are_drawn_by_another_vendor_in_tests_and_stamps_are_divided_as_elsewhere():
    for split, vendor in (("train", "google"), ("val", "twitter"), ("test", "twitter")):
        assert {example.id.partition("/")[0] for example in load_source("emoji-translation", split)} == {vendor}
    known = {example.id for example in load_source("stamp-pictures-train")}
    assert {example.id.partition(",")[0] for example in load_source("stamp-translation", "train")} == known


def test_translations_are_scored_by_chrf_and_bleu():
    task = open_task("stamp-translation-text")
    assert task.metrics == TASKS["stamp-translation-text"].metrics == ("chrf", "bleu")
    assert (task.default_split, task.support_split) == ("test", "train")
    examples = task.examples("test")
    right = [Prediction(example.id, example.target.references[0]) for example in examples]
    assert {name: figure.value for name, figure in task.score(examples, right).items()} == pytest.approx(
        {"chrf": 1.0, "bleu": 1.0}
    )
    wrong = [Prediction(example.id, "no") for example in examples]
    assert task.score(examples, wrong)["chrf"].value < 0.1
    assert task.score_each(examples, right).metric == "chrf"
    assert set(TRANSLATIONS) == {f"{name}{arm}" for name in SETS for arm in ARMS}
