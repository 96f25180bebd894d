"""Captions of stamps and names of emoji, to be translated from English into many languages.

There are three arms: the image and the English text, the text alone, and the image alone, which is captioning in many
languages. All have the same records. Varieties of a language that is there already (``en_GB``, ``ca@valencia``) are
left out.

A stamp is on the side of its English caption, so equal captions are together, and ``train`` has the same stamps as
``stamp-pictures-train``. An emoji is in one split; ``train`` has Google's drawings, ``val`` and ``test`` have
Twitter's. So a model that has learned from ``stamp-pictures-train`` or Google's emoji has seen no image of a test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from vislang.data.fetch import EMOJI_LANGUAGES, EMOJI_NAMES
from vislang.data.sets import emoji, stamps
from vislang.data.sets.emoji_groups import part_of
from vislang.data.sets.stamps import ENGLISH
from vislang.document import Document, Image, Part
from vislang.example import Example, Text, Wording

SPLITS = ("train", "val", "test")

ARMS = {"": ("image", "text"), "-text": ("text",), "-image": ("image",)}
"""What the prompts of each arm hold, by the end of its name."""

LANGUAGES = {
    "ach": "Acholi",
    "af": "Afrikaans",
    "ak": "Akan",
    "am": "Amharic",
    "an": "Aragonese",
    "ar": "Arabic",
    "ast": "Asturian",
    "be": "Belarusian",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "cy": "Welsh",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "eo": "Esperanto",
    "es": "Spanish",
    "et": "Estonian",
    "eu": "Basque",
    "fa": "Persian",
    "ff": "Fulah",
    "fi": "Finnish",
    "fr": "French",
    "ga": "Irish",
    "gd": "Scottish Gaelic",
    "gl": "Galician",
    "gu": "Gujarati",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "hy": "Armenian",
    "id": "Indonesian",
    "is": "Icelandic",
    "it": "Italian",
    "iu": "Inuktitut",
    "ja": "Japanese",
    "ka": "Georgian",
    "kab": "Kabyle",
    "km": "Khmer",
    "ko": "Korean",
    "ku": "Kurdish",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "mk": "Macedonian",
    "ml": "Malayalam",
    "ms": "Malay",
    "nb": "Norwegian Bokmål",
    "nl": "Dutch",
    "nn": "Norwegian Nynorsk",
    "nso": "Northern Sotho",
    "oc": "Occitan",
    "pl": "Polish",
    "pt": "Portuguese",
    "pt_BR": "Brazilian Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "shs": "Shuswap",
    "sk": "Slovak",
    "sl": "Slovenian",
    "son": "Songhai",
    "sq": "Albanian",
    "sr": "Serbian",
    "sv": "Swedish",
    "sw": "Swahili",
    "ta": "Tamil",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vec": "Venetian",
    "vi": "Vietnamese",
    "zh_CN": "Simplified Chinese",
    "zh_TW": "Traditional Chinese",
    "zu": "Zulu",
}
"""The languages by their codes."""

LEFT_OUT = {"country-flag", "subdivision-flag", "skin-tone", "family"}
"""Subgroups of emoji whose names are no words to translate, or of which several have the same drawing."""

EMOJI_CODES = {"zh": "zh_CN", "zh-hant": "zh_TW"}
"""Codes of the names of emoji, where those of the captions of stamps differ."""


@dataclass(frozen=True)
class Captioned:
    """An image with its English caption or name and the translations.

    Attributes:
        id: of the image.
        image: the image.
        english: the text to translate.
        translations: by language code.
        group: images of a group are in the same split.
        split: one of :data:`SPLITS`.
    """

    id: str
    image: Image
    english: str
    translations: dict[str, str]
    group: str
    split: str


def translations(of: str, split: str, arm: str = "") -> list[Example]:
    """The records of an arm: an image, a text or both, and its translation into one language.

    Args:
        of: ``stamps`` or ``emoji``.
        split: one of :data:`SPLITS`.
        arm: one of :data:`ARMS`.

    Raises:
        DataError: the set was not fetched.
    """
    found = []
    for own in captioned_stamps() if of == "stamps" else named_emoji():
        if own.split != split:
            continue
        given: dict[str, Part] = {"image": own.image, "text": own.english}
        parts = [given[part] for part in ARMS[arm]]
        for code, text in own.translations.items():
            name = f"{own.id}, {code}"
            language = LANGUAGES[code]
            asked = f"Translate into {language}: {{text}}" if "text" in ARMS[arm] else f"What is this in {language}?"
            prompt = Document(parts, name=name)
            found.append(Example(name, prompt, Text((text,)), group=own.group, source=name, wording=Wording(asked)))
    return found


def captioned_stamps() -> Iterator[Captioned]:
    """The stamps with a picture and an English caption.

    Raises:
        DataError: they were not fetched.
    """
    for stamp in stamps.stamps():
        if stamp.image is None or ENGLISH not in stamp.captions:
            continue
        english = stamp.captions[ENGLISH]
        others = {code: text for code, text in stamp.captions.items() if code in LANGUAGES}
        split = "train" if stamps.half_of(english) == 0 else "val" if part_of(english.lower()) < 1 / 3 else "test"
        yield Captioned(stamp.name, stamp.image, english, others, english.lower(), split)


def named_emoji() -> Iterator[Captioned]:
    """The emoji with an English name.

    Raises:
        DataError: they were not fetched.
    """
    names: dict[str, dict[str, str]] = {}
    for code in (ENGLISH, *EMOJI_LANGUAGES):
        path = EMOJI_NAMES.path("emojibase-data", "package", code, "compact.json")
        for record in json.loads(path.read_text(encoding="utf-8")):
            names.setdefault(_plain(record["hexcode"]), {})[EMOJI_CODES.get(code, code)] = record["label"]
    for drawing in emoji.drawings():
        part = part_of(drawing.emoji)
        split = "train" if part < 0.6 else "val" if part < 0.7 else "test"
        known = names.get(_plain(drawing.emoji), {})
        left_out = drawing.variant or drawing.subgroup in LEFT_OUT or ENGLISH not in known
        if left_out or drawing.vendor != ("google" if split == "train" else "twitter"):
            continue
        others = {code: text for code, text in known.items() if code in LANGUAGES}
        yield Captioned(drawing.id, drawing.image, known[ENGLISH], others, drawing.emoji, split)


def _plain(code: str) -> str:
    """Code points without the selector of the coloured form, which one of the sources leaves out."""
    return "-".join(point for point in code.upper().split("-") if point != "FE0F")
