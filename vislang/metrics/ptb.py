"""Words of captions as the caption scorers count them: the tokens of the Penn Treebank, without punctuation.

The authors of the COCO caption scores (Chen et al. 2015) run Stanford's ``PTBTokenizer``, which needs Java, in lower
case, and drop the tokens that are only punctuation. This module gives the same words for captions in English. The
rules follow from the program's output; ``tests/metrics/test_official.py`` compares both on thousands of captions. A
caption has the same words here whatever stands beside it: the Java program reads all captions as one text, so that
``no.`` at the end of one keeps its full stop if the next one begins with a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

_L = r"[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209f\u2150-\u218f\u2460-\u24ff]"
"""A letter of any language; Python also counts fractions and small digits among the characters of words."""

_A = rf"(?:{_L}|\d)"
"""A letter or digit."""

_ABBREVIATIONS = (
    "adj adm adv al ala alex apr ariz assn assoc asst atty attys aug ave bancorp bhd bldg blvd brig bros calif capt "
    "cf cie cmdr co col colo comdr conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla "
    "fri ft ga gen gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md "
    "messrs mfg mich minn mlle mme mo mon mont mr mrs ms msgr mt mtg natl neb nev nov oct okla penn pfc ph plc ppte "
    "ppty pres prof pte ptes pty ptys pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt "
    "sys tel tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo"
)
"""Words that keep their full stop, in upper and lower case."""

_CAPITALIZED = "ark az del ill la mass miss ore pa tex wash"
"""Names of states, which keep it if they begin with a capital letter."""

_BEFORE_NUMBERS = "art ca fig figs no nos op pp prop"
"""Words that keep it before a number."""

_SENTENCE_STARTS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr. Ms. Now "
    "Once One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You"
)
"""Words before which a letter with a full stop ends a sentence."""


def _any(words: str) -> str:
    return "|".join(re.escape(word) for word in words.split())


def _capitalized(words: str) -> str:
    return "|".join(f"{word.capitalize()}|{word.upper()}" for word in words.split())


_NUMBER = r"(?:\d*(?:[.:,]\d+)+|\d+)"
_HYPHENATED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+"
_ADDRESS = r"""[^\s"<>|()]"""
_ADDRESS_END = r"""[^\s"<>|.!?(){},-]"""

_KINDS: tuple[str, ...] = (
    # Markup, addresses, names in social media.
    r"</?[A-Za-z!?][^>\n]*>",
    rf"https?://{_ADDRESS}+{_ADDRESS_END}",
    rf"""(?:www\.(?:[^\s"`'<>|.!?(){{}},]+\.)+[A-Za-z]{{2,4}}|(?:[^\s"`'<>|.!?(){{}},_$-]+\.)+(?:com|net|org|edu))"""
    rf"(?:/{_ADDRESS}+{_ADDRESS_END})?",
    rf"""[A-Za-z0-9][^\s"<>|()]*@(?:[^\s"<>|().!?{{}},-]+\.)*{_ADDRESS_END}+""",
    rf"#{_L}+|@[A-Za-z_]\w*",
    r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?![A-Za-z])|\^_\^",
    # Numbers: dates, fractions, telephone numbers, amounts.
    r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",
    r"(?:\d{1,4}[- ])?\d{1,4}/\d{1,4}",
    r"\(\d{2,3}\) ?\d{3,4}[- ]?\d{3,5}",
    rf"[-+]?{_NUMBER}",
    r"[A-Z]*\$",
    # Words: with full stops, hyphens, slashes, underscores; acronyms and abbreviations.
    rf"{_L}{_A}*(?:[.!?]{_L}{_A}*)*",
    rf"{_A}+(?:_{_A}+)*",
    rf"(?:[DdOoLl]')?{_A}(?:{_A}|[.,])*(?:-(?:[DdOoLl]'{_L}+|{_ACRONYM}\.|{_A}+))+",
    rf"{_HYPHENATED}(?:/{_HYPHENATED}){{1,2}}",
    r"[A-Z]+(?:[+&][A-Z]+)+",
    r"[Cc]\+\+|[CcFfJj]#",
    rf"{_ACRONYM}\.|(?i:ph\.d)\.",
    rf"[A-Za-z]\.(?!\s+(?:{_any(_SENTENCE_STARTS)})\s)",
    rf"(?:(?i:{_any(_ABBREVIATIONS)})|{_capitalized(_CAPITALIZED)})\.",
    rf"(?i:{_any(_BEFORE_NUMBERS)})\.(?=\s?\d)",
    rf"{_A}+(?:\.{_A}+)*\.(?=[,;:])",
    # Apostrophes in words.
    rf"[DdOoLl]'{_L}+|{_L}+[aeiouy]'[aeiouA-Z]{_L}*",
    r"'[nN]'?|[LlDdJj]'|[Yy]'|(?i:ol'|somethin'|'em|c'mon|'cause|'till?)",
    r"'[2-9]0[Ss]|'\d\d(?=\s)",
    # Runs of marks.
    r"\.\.+|-+|[?!]+|\*+|#+|_+|`+|''",
)
"""The kinds of token; of those that match, the longest is the token."""

_TOKENS = tuple(re.compile(kind) for kind in _KINDS)

_SHORT = r"'(?:[msd]|re|ve|ll)(?![A-Za-z])"
_DIVIDED = tuple(
    re.compile(kind, re.IGNORECASE)
    for kind in (
        rf"(?:(can)(not)|(gon|wan)(na)|(got)(ta)|(lem|gim)(me)|('t)(is|was))(?!{_A}|{_SHORT})",
        rf"({_L}*)(n't)(?!{_A})",
        rf"({_SHORT})",
    )
)
"""Tokens whose groups are separate words."""

_SIMPLE = re.compile(r"(?!(?:cannot|gonna|wanna|gotta|lemme|gimme) )[a-z]+ ")
"""The usual case: a word in lower case with a space behind it."""

_WRITTEN = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "£": "#",
    "€": "$",
    "¢": "cents",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
}
"""How the tokenizer writes a mark."""

_MARKS = str.maketrans("‘’‛“”«»‹›\u00a0", "'''\"\"\"\"'' ") | dict.fromkeys(map(ord, "‒–—―"), "--") | {ord("…"): "..."}
"""Typographic marks as those of a keyboard."""

_PUNCTUATION = {"''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "...", ";"}
"""Tokens that are no words. Brackets are not among them: the authors drop ``-LRB-``, after it became ``-lrb-``."""


@lru_cache(maxsize=100_000)
def words(text: str) -> tuple[str, ...]:
    """The words of a caption.

    >>> words("The man's T-shirt doesn't say 1,000.")
    ('the', 'man', "'s", 't-shirt', 'does', "n't", 'say', '1,000')
    """
    # Characters beyond the basic plane, such as emoji, are in no token.
    tokens = _tokens(re.sub(r"[^\u0000-\uffff]", "", text.translate(_MARKS)) + " ")
    written = (re.sub(r"[()[\]{}£€¢½¼¾]", lambda mark: _WRITTEN[mark[0]], token.lower()) for token in tokens)
    return tuple(word for token in written for word in token.split() if word not in _PUNCTUATION)


def _tokens(text: str) -> Iterator[str]:
    """The tokens of a text that ends with a space."""
    start = 0
    while start < len(text):
        if text[start].isspace():
            start += 1
            continue
        if simple := _SIMPLE.match(text, start):
            start = simple.end()
            yield simple[0]
            continue
        length = max((found.end() - start for kind in _TOKENS if (found := kind.match(text, start))), default=1)
        divided = max((found for kind in _DIVIDED if (found := kind.match(text, start))), key=_length, default=None)
        if divided is not None and _length(divided) >= length:
            yield from filter(None, divided.groups())
            length = _length(divided)
        else:
            token = text[start : start + length]
            yield "-" if set(token) == {"-"} else "..." if set(token) == {"."} else token
        start += length


def _length(found: re.Match[str]) -> int:
    return found.end() - found.start()
