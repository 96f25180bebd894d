"""The documentation: its commands parse, its records are valid, its links and pictures exist."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import io
import json
import re
from contextlib import redirect_stderr
from pathlib import Path

import pytest
import yaml

from tests.run_docs import FENCE, PROGRAMS, ROOT, Command, blocks, commands, records, runnable, write_medium
from vislang.cli import VERBS
from vislang.commands.options import parse
from vislang.data.jsonl import read_jsonl
from vislang.data.sources import RECORDS
from vislang.recipe import read_recipe, recipe_of
from vislang.tasks.catalogue import TASKS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ALL = [command for page in PAGES for command in commands(page)]
MINE = [command for command in ALL if Path(command.words[0]).name == "vislang"]
BASES = {"data2vec.md": "data2vec-image.yaml", "vilbert.md": "vilbert-easyvqa.yaml"}
"""The recipe that a page's fragments of recipes change; of other pages flamingo.yaml."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def verb_of(words: tuple[str, ...]) -> str:
    found = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in VERBS), None)
    assert found is not None, f"no verb: vislang {' '.join(words[:2])}"
    return found


def class_of(verb: str) -> type:
    module, name, _ = VERBS[verb]
    return getattr(importlib.import_module(f"vislang.commands.{module}"), name)


def parsed(words: tuple[str, ...]):
    """The command's dataclass; fails with the parser's own message."""
    verb = verb_of(words)
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parse(class_of(verb), f"vislang {verb}", words[len(verb.split()) :])
    except SystemExit:
        pytest.fail(said.getvalue())


def must_be_task(name: str) -> None:
    assert name.partition(":")[0] in TASKS or name.endswith(RECORDS) or name.isupper(), f"no such task: {name}"


def check(command: Command) -> None:
    """Fail unless a command line is one that vislang takes: verb, options, types, recipe and its values, task."""
    # The words after a redirection are for the shell.
    words = command.words[: command.words.index(">")] if ">" in command.words else command.words
    made = parsed(words[1:])
    if command.words[1] in ("train", "rehearse") and made.recipe is not None:
        read_recipe(ROOT / made.recipe, made.overrides)
    if command.words[1] in ("eval", "probe") and made.task is not None:
        must_be_task(made.task)


def test_there_are_commands_and_records_to_check():
    assert len(MINE) > 50
    assert sum(len(records(page)) for page in PAGES) > 20


@pytest.mark.parametrize("command", MINE, ids=str)
def test_a_command_of_the_docs_is_one_that_vislang_takes(command):
    check(command)


@pytest.mark.parametrize(
    "line",
    [
        "vislang trian recipes/flamingo.yaml",
        "vislang train recipes/flamingoes.yaml",
        "vislang train recipes/flamingo.yaml --train.lrr 1",
        "vislang train recipes/flamingo.yaml --train.steps few",
        "vislang ask MODEL",
        "vislang eval MODEL --task easy-vqqa",
        "vislang eval MODEL --limit few",
        "vislang data show easy-vqa --number 3",
    ],
)
def test_a_wrong_command_is_found(line):
    from vislang.errors import UserError

    with pytest.raises((AssertionError, UserError, pytest.fail.Exception)):
        check(Command("page", 1, tuple(line.split())))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_command_within_a_sentence_has_a_verb_and_options_that_exist(page):
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    for span in re.findall(r"`vislang ([a-z][^`]*)`", " ".join(outside.split())):
        words = tuple(span.split())
        group = any(verb.startswith(f"{words[0]} ") for verb in VERBS)
        if len(words) == 1 and group:
            continue
        made = class_of(verb_of(words))
        fields = {field.name: field.metadata for field in dataclasses.fields(made)}
        known = {f"--{name.replace('_', '-')}" for name in fields} | {"-n", "-o", "--help"}
        if not any(metadata.get("overrides") for metadata in fields.values()):
            assert {word.split("=")[0] for word in words if word.startswith("--")} <= known, span


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_line_of_a_shell_block_is_a_command(page):
    for command in commands(page):
        assert command.words[0] in (*PROGRAMS, ".venv/bin/pre-commit"), command
        if command.words[:2] == ("python", "-m") or command.words[:2] == (".venv/bin/python", "-m"):
            assert importlib.util.find_spec(command.words[2]) is not None, command


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_record_is_read(page, tmp_path):
    found = records(page)
    for number, line in found:
        record = json.loads(line)
        named = [record.get(kind) for kind in ("image", "video", "audio")] + record.get("images", [])
        named += [next(iter(part.values())) for part in record.get("parts", []) if isinstance(part, dict)]
        for medium in filter(None, named):
            if not (tmp_path / medium).exists():
                write_medium(tmp_path / medium)
        (tmp_path / "my.jsonl").write_text(line + "\n", encoding="utf-8")
        problems: list = []
        assert len(read_jsonl(tmp_path / "my.jsonl", problems)) == 1, f"{name_of(page)}:{number}: {problems}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_json_of_any_other_kind_is_json(page):
    for _, _, text in blocks(page, "json"):
        json.loads(text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fragments_of_recipes_are_settings(page):
    base = yaml.safe_load((ROOT / "recipes" / BASES.get(page.name, "flamingo.yaml")).read_text(encoding="utf-8"))
    for _, _, text in blocks(page, "yaml"):
        fragment = yaml.safe_load(text)
        model = {**base["model"]["init_args"], **fragment.pop("model", {}).get("init_args", {})}
        train = {**base["train"], **fragment.pop("train", {})}
        recipe_of({**base, **fragment, "model": {**base["model"], "init_args": model}, "train": train})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_is_python_and_imports_what_exists(page):
    for _, _, text in blocks(page, "python"):
        lines = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(lines, []), name_of(page), "exec"), {})


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked by, as GitHub does it."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_exist(page):
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", outside):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{name_of(page)}: {target}"


def test_every_task_and_recipe_is_in_the_docs():
    text = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in TASKS if f"`{name}" not in text] == []
    assert [path.name for path in (ROOT / "recipes").glob("*.yaml") if path.name not in text] == []
    assert [verb for verb in VERBS if f"vislang {verb}" not in text] == []


def test_training_is_made_short_when_the_docs_are_run():
    words = runnable(Command("page", 1, ("vislang", "train", "recipes/flamingo.yaml")))
    assert words is not None
    assert "--train.steps=2" in words
    words = runnable(
        Command("page", 1, ("vislang", "eval", "m", "--task", "vqa:f", "--shots", "0,4,8", "--limit", "99"))
    )
    assert words is not None
    assert (words[words.index("--shots") + 1], words[words.index("--limit") + 1]) == ("0,4", "4")
    assert runnable(Command("page", 1, ("make", "test"))) is None
