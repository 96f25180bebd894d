"""Run all commands of README.md and docs/ in order, in an empty folder; ``make docs`` calls this.

Training is cut to two steps and evaluation to a few examples. The folder gets the files that the pages mention:
``photo.png``, ``my.jsonl``, ``data/vqa`` and so on. Commands that install something, or that contain a placeholder, are
listed and not run. Studies and benchmarks run for minutes to hours; only their ``--help`` is run.
``tests/test_docs.py`` also uses :func:`commands` and :func:`records`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tests.tiny import write_video

ROOT = Path(__file__).parents[1]
GUIDES = (
    *("data", "data2vec", "vilbert", "flamingo", "training", "evaluation", "plan", "cluster", "search", "serve"),
    *("studies", "earlier", "composed"),
)
RESULTS = tuple(
    f"results/{name}"
    for name in (
        *("data2vec", "vilbert", "flamingo", "lmms-eval", "benchmarks", "studies", "earlier", "composed"),
        "translation",
    )
)
LEARN = tuple(f"learn/{name}" for name in ("data2vec", "vilbert", "flamingo"))
PAGES = ("README.md", *(f"docs/{name}.md" for name in (*GUIDES, "tasks", *LEARN, *RESULTS)), "CONTRIBUTING.md")
"""Pages whose commands are run, in this order: later pages use models that earlier ones trained."""

PROGRAMS = (
    *("vislang", ".venv/bin/vislang", "python", ".venv/bin/python", "make", "pip", ".venv/bin/pip", "source"),
    "curl",
)
"""First words of commands in a block without a language."""

SHORT = (
    *("--train.steps=2", "--train.batch_size=4", "--train.warmup_steps=0", "--train.eval_every=0"),
    *("--train.eval_examples=4", "--limit=64", "--eval_limit=4"),
)
"""Settings of a short run."""

PLACEHOLDERS = {"MODEL", "TASK", "FILE", "FOLDER", "NAME"}
"""Words that a reader has to replace."""

TIMEOUT = 900
"""Seconds that a command may take."""

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command of a page: its position, and its words."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def blocks(page: Path, *languages: str) -> list[tuple[int, str, str]]:
    """The fenced blocks of a page in some languages: the number of the first line, the language, the text."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, found.start(2)) + 1, found[1], found[2])
        for found in FENCE.finditer(text)
        if found[1] in languages
    ]


def commands(page: Path) -> list[Command]:
    """Every shell command of a page. A block without a language may also contain output, which is ignored."""
    found = []
    name = str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else str(page)
    for first, language, text in blocks(page, "sh", "bash", "console", ""):
        number, gathered = first, ""
        for offset, line in enumerate(text.splitlines()):
            number = number if gathered else first + offset
            gathered += line
            if gathered.endswith("\\"):
                gathered = gathered[:-1]
                continue
            words, gathered = gathered.split(), ""
            words, line = (words, " ".join(words)) if words else ([], "")
            if not words or words[0].startswith("#") or (not language and words[0] not in PROGRAMS):
                continue
            found.append(Command(name, number, tuple(shlex.split(line, comments=True))))
    return found


def records(page: Path) -> list[tuple[int, str]]:
    """Every JSON Lines record of a page, with the number of its line; also those in a sentence."""
    found = []
    for first, _, text in blocks(page, "jsonl", ""):
        lines = enumerate(text.splitlines(), start=first)
        found += [(number, line) for number, line in lines if line.startswith('{"')]
    outside = FENCE.sub(lambda block: "\n" * block[0].count("\n"), page.read_text(encoding="utf-8"))
    for number, line in enumerate(outside.splitlines(), start=1):
        found += [(number, span) for span in re.findall(r"`(\{\".*?\})`", line)]
    return found


# ------------------------------------------------------------------------------------------- the files of the pages


def draw(path: Path, number: int) -> str:
    """A picture of a shape on white, 128 pixels wide; returns its colour."""
    colour, shape = ("red", "blue", "green")[number % 3], ("ellipse", "rectangle")[number % 2]
    image = Image.new("RGB", (128, 128), "white")
    getattr(ImageDraw.Draw(image), shape)([20 + number, 30, 80 + number, 90], fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return colour


def write_medium(path: Path, number: int = 0) -> None:
    """A picture, a video of three seconds or a recording of one, by the ending of its name."""
    if path.suffix == ".mp4":
        write_video(path, [0, 120, 250])
    elif path.suffix == ".wav":
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            tone = np.sin(np.arange(16_000) * 2 * np.pi * (220 + 20 * number) / 16_000)
            file.writeframes((tone * 8_000).astype("<i2").tobytes())
    else:
        draw(path, number)


def write_lines(path: Path, rows: list[dict]) -> None:
    """A JSON Lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_vqa(folder: Path) -> None:
    """Six questions of a training and of a validation split, in the format of VQA 2."""
    for split in ("train2014", "val2014"):
        questions, annotations = [], []
        for number in range(1, 7):
            colour = draw(folder / split / f"COCO_{split}_{number:012d}.jpg", number + 20 * (split == "val2014"))
            questions.append({"image_id": number, "question_id": number, "question": "what color is it?"})
            answers = [{"answer": colour, "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)]
            about = {"image_id": number, "question_id": number, "answer_type": "other", "question_type": "what"}
            annotations.append({**about, "answers": answers})
        written = {"data_subtype": split, "questions": questions}
        (folder / f"v2_OpenEnded_mscoco_{split}_questions.json").write_text(json.dumps(written))
        (folder / f"v2_mscoco_{split}_annotations.json").write_text(json.dumps({"annotations": annotations}))


def write_workspace(folder: Path) -> None:
    """Write the files that the pages mention."""
    for name in ("recipes", "tests"):
        (folder / name).symlink_to(ROOT / name)
    for number, name in enumerate(
        ("photo.png", *(f"{letter}.png" for letter in "abcde"), "c.mp4", "film.mp4", "a.wav")
    ):
        write_medium(folder / name, number)
    photos = [f"photos/{number:02d}.png" for number in range(24)]
    colours = [draw(folder / name, number) for number, name in enumerate(photos)]
    shown = list(zip(photos, colours, strict=True))
    own = [json.loads(line) for _, line in records(ROOT / "README.md")]
    asked = [{"image": name, "question": "what color?", "answer": colour} for name, colour in shown]
    write_lines(folder / "my.jsonl", [*asked, *(r for r in own if "answer" in r or "target" in r or set(r) == CAPTION)])
    write_lines(folder / "examples.jsonl", asked[:4])
    write_lines(
        folder / "captions.jsonl", [{"image": name, "text": f"a {c} shape, {name[-6:-4]}"} for name, c in shown]
    )
    write_lines(folder / "labels.jsonl", [{"image": name, "label": colour} for name, colour in shown])
    claims = [{"image": name, "text": "it is red", "label": str(colour == "red").lower()} for name, colour in shown]
    write_lines(folder / "claims.jsonl", claims)
    boxes = [[20 + number, 30, 80 + number, 90] for number in range(24)]
    rows = [{"image": n, "text": f"the {c} one", "box": box} for (n, c), box in zip(shown, boxes, strict=True)]
    write_lines(folder / "boxes.jsonl", rows)
    (folder / "notes.txt").write_text(
        "\n\n".join(f"Paragraph {n} is about the colour {c}." for n, (_, c) in enumerate(shown))
    )
    write_vqa(folder / "data/vqa")


CAPTION = {"image", "text"}


# ------------------------------------------------------------------------------------------------------ running them


def runnable(command: Command) -> list[str] | None:
    """The words of a shortened command to run in the folder; None for commands that are not run."""
    program, *words = command.words
    if ">" in words:
        words = words[: words.index(">")]
    if PLACEHOLDERS & set(words):
        return None
    if command.words == ("make", "demo"):
        program, words = "vislang", ["demo"]
    if Path(program).name == "python" and words[:1] == ["-m"]:
        # A study trains for minutes to hours.
        return [sys.executable, *words[:2], "--help"] if words[1].startswith("vislang.studies.") else None
    if program == "python" and words[0].startswith("benchmarks/"):
        return [sys.executable, str(ROOT / words[0]), "--help"]
    if Path(program).name != "vislang":
        return None
    # A server runs until it is stopped, its clients need it, and a study takes half an hour.
    if words[:1] == ["serve"] or "--server" in words or (words[:1] == ["study"] and "--list" not in words):
        return [sys.executable, "-m", "vislang.cli", words[0], "--help"]
    run = [sys.executable, "-m", "vislang.cli", *words]
    if words[:1] == ["demo"] or (words[:1] == ["train"] and "--resume" not in words):
        return [*run, *SHORT]
    if words[:1] == ["train"]:
        # A finished run is extended by one step.
        return [re.sub(r"^\d+$", "3", word) for word in run]
    if words[:1] == ["rehearse"]:
        return [*run, *SHORT, "--kills=2", "--steps=4"]
    if words[:1] == ["eval"] and words[1].endswith((".jsonl", ".json")):
        # Of a few examples only the same few are scored again; results beside the file state them.
        run += ["--limit", "4"] if "--task" in words else []
    elif words[:1] == ["eval"] and "--like" not in words:
        limit = "24" if "--abstain" in words else "4"
        run = [re.sub(r"^(\d+,\d+)(,\d+)+$", r"\1", word) for word in run]
        run = [word for n, word in enumerate(run) if "--limit" not in run[max(n - 1, 0) : n + 1]] + ["--limit", limit]
        few = {"--draws": "1", "--orders": "2"}
        run = [few.get(run[n - 1], word) for n, word in enumerate(run)]
        run += ["--draws", "1"] if "--shots" in words and not {"--draws", "--seeds"} & set(words) else []
    return run


def main() -> int:
    """Run the commands; returns 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("pages", nargs="*", default=PAGES, help="the pages to run (default: all)")
    parser.add_argument("--folder", type=Path, help="an empty folder, or that of an earlier run (default: a new one)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="vislang-docs-"))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "my.jsonl").exists():
        write_workspace(folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    failed = left = 0
    print(f"in {folder}", flush=True)
    for command in (command for page in options.pages for command in commands(ROOT / page)):
        words = runnable(command)
        if words is None:
            left += 1
            print(f"     not run   {command}", flush=True)
            continue
        started = time.perf_counter()
        try:
            done = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
            status, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            status, output = 124, f"took more than {TIMEOUT} s"
        print(f"{time.perf_counter() - started:6.1f} s  exit {status}  {command}", flush=True)
        if status:
            failed += 1
            print("\n".join(f"    {line}" for line in output.splitlines()[-12:]), flush=True)
    print(f"{failed} failed, {left} not run")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
