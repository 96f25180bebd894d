"""Random inputs of the official scorers, from a seed. Their results are recorded beside this file (``record.py``)."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Iterable
from typing import Any

SEED = 2026


def _listed(text: str, mark: str | None = None) -> list[str]:
    return text.split(mark)


# ------------------------------------------------------------------------------------------------------------- VQA

BASES = _listed(
    "dog|black and white|t-shirt|2|two|none|zero|yes|no|don't know|it's red|man's|1,000|3.5|9:30|red/blue|x-y|stop!|"
    "the beach|couldn't've|a.m.|U.S.|left (blue)|50%|"
    "it is|i'm not sure|who's there|half-pipe|１,０|٣,٤|café|ten|o'clock",
    "|",
)
"""Answers; one with digits of other scripts, which the official program does not take for digits."""

QUESTIONS = 3000

TYPES = ("yes/no", "number", "other")


def _said(rng: random.Random, base: str) -> str:
    """An answer as somebody might type it."""
    said = base
    for old, new in (("'", ""), ("-", " "), (",", ""), ("/", " / "), ("two", "2"), (" ", "  "), (".", "")):
        if rng.random() < 0.12:
            said = said.replace(old, new)
    said = said.upper() if rng.random() < 0.05 else said.capitalize() if rng.random() < 0.15 else said
    before = rng.choice([""] * 12 + ["a ", "the ", "an ", " ", "\t", "The ", "- ", "("])
    return before + said + rng.choice([""] * 12 + [".", "!", " ", "\n", ",", ";", " ?", "-", ", dog", ")"])


def vqa() -> list[dict[str, Any]]:
    """Questions with a ``prediction``, ten ``answers`` and an ``answer_type``."""
    rng = random.Random(SEED)
    found = []
    for number in range(QUESTIONS):
        bases = rng.sample(BASES, rng.choice([1, 2, 2, 3, 4]))
        tidy = rng.random() < 0.2
        answers = [base if tidy else _said(rng, base) for base in (rng.choice(bases) for _ in range(10))]
        prediction = rng.choice([rng.choice(answers), _said(rng, rng.choice(bases)), rng.choice(BASES)])
        found.append(
            {"question_id": number, "answer_type": rng.choice(TYPES), "answers": answers, "prediction": prediction}
        )
    return found


# -------------------------------------------------------------------------------------------------------- captions

WORDS = _listed(
    "a the man woman's dogs' cat T-Shirt t-shirt black-and-white don't can't isn't it's I'm we're they've she'll "
    "cannot gonna o'clock O'Brien sign street light bus Dr. Mr. St. etc. U.S. u.s.a. p.m. a.m. No. no. vs. e.g. "
    "Main mountain-bike skate-boarder and/or his/her TV DVD AT&T B&W '60s 1990s 90's 7's"
)
NUMBERS = _listed(
    "5 12 1,000 3.5 9:30 10:45pm 1/2 24/7 2-3 5' 10x10 4th $5 $1,200.50 50% #1 #22 747-400 9/11 12/25/2010 -5 +3 "
    ".5 1990 (5) £3 €4 5¢ ½ 100% 1st 22nd 5ft 10mph 5-year-old 20-foot 2.5-inch 007"
)
MARKS = _listed('( ) [ ] { } % $ & # * / - -- ... . , ; : ! ? !! ?! " “ ” – — … + = @ _ ~ ^ | \\ < > ° é 😀')

CORPORA, IMAGES = 170, 12


def caption(rng: random.Random) -> str:
    """Words, numbers and marks as captions have them, and more often than captions have them."""
    written = []
    for _ in range(rng.randint(2, 9)):
        draw = rng.random()
        if draw > 0.88:
            written.append(rng.choice(MARKS))
            continue
        word = rng.choice(WORDS if draw < 0.68 else NUMBERS)
        change = rng.random()
        if change < 0.16:
            word = word.upper() if change < 0.08 else word.capitalize()
        elif change < 0.3 and word[-1].isalpha():
            word = (f"({word})", f'"{word}"', f"{word}.", f"{word},", f"{word}!", f"{word}'s")[rng.randrange(6)]
        written.append(word)
    return " ".join(written)


def captions() -> list[tuple[list[str], list[list[str]]]]:
    """Corpora: a candidate for each image, and its references. Many candidates share words with a reference."""
    rng = random.Random(SEED)
    found = []
    for _ in range(CORPORA):
        references = [[caption(rng) for _ in range(rng.randint(1, 4))] for _ in range(IMAGES)]
        candidates = []
        for own in references:
            words = rng.choice(own).split(" ")
            for _ in range(rng.randint(0, 4)):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            candidates.append(" ".join(words) if rng.random() < 0.9 else caption(rng))
        found.append((candidates, references))
    return found


def every_caption() -> list[str]:
    """All candidates and references of :func:`captions`, in order."""
    return [
        text
        for candidates, references in captions()
        for text in (*candidates, *(caption for own in references for caption in own))
    ]


def checksum(words: Iterable[str]) -> str:
    """Four hexadecimal digits for the words of a caption."""
    return f"{zlib.crc32(' '.join(words).encode()) % 65536:04x}"


# ----------------------------------------------------------------------------------------------------------- NLVR2

FILES = 250


def nlvr2() -> list[tuple[list[dict[str, str]], list[tuple[str, str]]]]:
    """For each file its records, and lines of predictions in another order."""
    rng = random.Random(SEED)
    found = []
    for _ in range(FILES):
        records = [
            {"identifier": f"dev-{group}-{pair}-{sentence}", "sentence": "x", "label": rng.choice(("True", "False"))}
            for group in range(rng.randint(1, 4))
            for pair in range(rng.randint(1, 4))
            for sentence in range(rng.randint(1, 2))
        ]
        right = rng.random()
        lines = []
        for record in records:
            other = {"True": "False", "False": "True"}[record["label"]]
            answer = record["label"] if rng.random() < right else other
            lines.append((record["identifier"], answer if rng.random() < 0.7 else answer.lower()))
        rng.shuffle(lines)
        found.append((records, lines))
    return found


# ------------------------------------------------------------------------------------------------------------- GQA

QUESTION_FILES, QUESTIONS_A_FILE = 30, 60

STRUCTURES = ("query", "verify", "logical", "choose", "compare")
SEMANTICS = ("attr", "cat", "global", "obj", "rel")
GROUPS = ("color", "animal", "place", None)
SHORT_ANSWERS = _listed("red|blue|yes|no|dog|t-shirt|color|shape|left", "|")


def gqa() -> list[dict[str, Any]]:
    """Files of questions: ``questions`` and ``choices`` by id, as the official ones have them, and ``predictions``.

    Half of the questions are balanced; questions entail others, and some themselves; a prediction may differ from the
    answer in its case or its spaces.
    """
    rng = random.Random(SEED)
    found = []
    for _ in range(QUESTION_FILES):
        names = [str(number) for number in rng.sample(range(10_000_000), QUESTIONS_A_FILE)]
        questions, choices, predictions = {}, {}, {}
        right = rng.random()
        for name in names:
            answer, semantic = rng.choice(SHORT_ANSWERS), rng.choice(SEMANTICS)
            questions[name] = {
                "semantic": [{"operation": "select", "dependencies": [], "argument": "cat (1)"}] * rng.randint(1, 4),
                "entailed": rng.sample(names, rng.choice((0, 0, 1, 2, 5))) + [name] * rng.randint(0, 1),
                "equivalent": [name],
                "question": "is it " + "so " * rng.randint(0, 5) + "?",
                "imageId": str(rng.randrange(100)),
                "isBalanced": rng.random() < 0.5,
                "groups": {"global": rng.choice(GROUPS), "local": "x"},
                "answer": answer,
                "types": {
                    "detailed": rng.choice(("colorWhat", "verifyAttr", "twoCommon", "twoSameC")),
                    "semantic": semantic,
                    "structural": rng.choice(STRUCTURES),
                },
            }
            valid = rng.sample(SHORT_ANSWERS, rng.randint(0, 5))
            choices[name] = {"valid": valid, "plausible": valid[: rng.randint(0, len(valid))]}
            said = answer if rng.random() < right else rng.choice(SHORT_ANSWERS)
            predictions[name] = rng.choice((said, said, said, said, said.capitalize(), f"{said} "))
        found.append({"questions": questions, "choices": choices, "predictions": predictions})
    return found


# ------------------------------------------------------------------------------------------------------------- R2R

BUILDINGS, VIEWS, PATHS = 120, 14, 3


def r2r() -> list[dict[str, Any]]:
    """Buildings: ``connectivity``, ``paths`` (records of R2R) and ``results`` (a trajectory for each instruction).

    Viewpoints lie on a grid of 1.5 m, so that many trajectories end exactly 3 m from the goal.
    """
    rng = random.Random(SEED)
    found = []
    for building in range(BUILDINGS):
        places = [(1.5 * x, 1.5 * y, 0.5 * rng.randint(0, 1)) for x, y in rng.sample(_grid(), VIEWS)]
        seen = [[False] * VIEWS for _ in places]
        for one in range(VIEWS):
            near = sorted(range(VIEWS), key=lambda other: math.dist(places[one], places[other]))
            # Nearest neighbours, and a tree, so that everything can be reached.
            for other in (*near[1:3], *([rng.randrange(one)] if one else [])):
                seen[one][other] = seen[other][one] = True
        connectivity = [
            {
                "image_id": f"v{number}",
                "included": True,
                "pose": [place[row] if column == 3 else 0.0 for row in range(3) for column in range(4)] + [0.0] * 4,
                "unobstructed": seen[number],
            }
            for number, place in enumerate(places)
        ]
        paths, results = [], []
        for number in range(PATHS):
            path = _walk(rng, seen, rng.randrange(VIEWS), rng.randint(2, 6))
            while path[0] == path[-1]:
                path = _walk(rng, seen, path[0], rng.randint(2, 6))
            identifier = 10 * building + number
            record = {"scan": f"s{building}", "path_id": identifier, "path": [f"v{view}" for view in path]}
            paths.append({**record, "instructions": ["go", "walk", "turn"]})
            for instruction in range(3):
                if rng.random() < 0.4:
                    walked = path[: rng.randint(1, len(path))]
                else:
                    walked = _walk(rng, seen, path[0], rng.randint(1, 8))
                steps = [[f"v{view}", 0.0, 0.0] for view in walked for _ in range(rng.choice((1, 1, 1, 2, 3)))]
                results.append({"instr_id": f"{identifier}_{instruction}", "trajectory": steps})
        rng.shuffle(results)
        found.append({"connectivity": connectivity, "paths": paths, "results": results})
    return found


def _grid() -> list[tuple[int, int]]:
    return [(x, y) for x in range(5) for y in range(5)]


def _walk(rng: random.Random, seen: list[list[bool]], start: int, length: int) -> list[int]:
    walked = [start]
    for _ in range(length - 1):
        walked.append(rng.choice([other for other, visible in enumerate(seen[walked[-1]]) if visible]))
    return walked
