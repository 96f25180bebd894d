"""Without vislang's extras all else works, and what needs one names the command that installs it."""

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

from vislang.cli import main
from vislang.errors import UserError
from vislang.evaluate import evaluation

ROOT = Path(__file__).parents[2]

BEHIND_A_CHECK = (
    *(f"vislang.evaluate.{name}" for name in ("page", "plots", "curves", "browse", "gallery", "revealed", "probe")),
    *(
        f"vislang.evaluate.{name}_page"
        for name in ("answers", "evaluation", "examples", "explain", "few_shot", "run", "compare", "shots")
    ),
    "vislang.figures",
    "vislang.integrations.lmms_eval",
    "vislang.studies.data2vec",
    "vislang.studies.tower_knowledge",
    "vislang.serve",
)
"""Modules that are imported where they are needed, once it is known that their packages are there."""

IMPORT_ALL = """
import importlib, pkgutil, sys
from importlib.machinery import PathFinder

missing, passed_over = (tuple(words.split(",")) for words in sys.argv[1:])
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in missing else find(name, *rest)
import vislang
for module in pkgutil.walk_packages(vislang.__path__, "vislang."):
    if not module.name.startswith(passed_over):
        importlib.import_module(module.name)
"""


def test_everything_is_imported_without_the_packages_of_the_extras():
    packages = "sklearn,threadpoolctl,pyarrow,sacrebleu,jiwer,soundfile,soxr,av,lmdb,jinja2,matplotlib,easy_vqa"
    packages += ",fastapi,starlette,uvicorn,prometheus_client"
    arguments = [packages, ",".join(BEHIND_A_CHECK)]
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def without(monkeypatch):
    """Calling it makes packages look as if they were not installed."""
    find = importlib.util.find_spec

    def remove(*packages: str) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in packages else find(name))

    return remove


@pytest.mark.parametrize(
    ("arguments", "package", "message"),
    [
        ("embed model 0.png", "pyarrow", "a Parquet table needs pyarrow. Run: pip install 'vislang[eval]'"),
        ("probe model --task my.jsonl", "sklearn", "a probe needs sklearn. Run: pip install 'vislang[eval]'"),
        ("study data2vec-beta", "sklearn", "a probe needs sklearn. Run: pip install 'vislang[eval]'"),
        ("explain model 0.png what", "jinja2", "the page needs jinja2. Run: pip install 'vislang[report]'"),
        ("report run", "matplotlib", "a report needs matplotlib. Run: pip install 'vislang[report]'"),
        ("data show my.jsonl", "jinja2", "needs jinja2. Run: pip install 'vislang[report]'"),
        ("serve model", "fastapi", "a server needs fastapi. Run: pip install 'vislang[serve]'"),
        ("eval model --task my.jsonl --shots 0 --report page.html", "matplotlib", "--report needs matplotlib"),
    ],
)
def test_a_verb_names_the_extra_that_it_needs(pictures, monkeypatch, without, capsys, arguments, package, message):
    monkeypatch.chdir(pictures)
    without(package)
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err


def test_an_evaluation_by_embedding_names_the_extra_that_it_needs(without):
    without("sklearn")
    with pytest.raises(UserError, match="a classifier on embeddings needs sklearn"):
        evaluation.evaluate(None, None, [], way="embed")  # type: ignore[arg-type]


def test_doctor_and_readme_name_every_extra(without, capsys):
    extras = set(metadata("vislang").get_all("Provides-Extra") or []) - {"test", "clients"}
    assert {"eval", "report", "demo"} <= extras
    assert main(["doctor"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert extras <= listed
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert set(table) == extras
    without("sklearn", "jinja2")
    assert main(["doctor"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "missing scikit-learn; run: pip install 'vislang[eval]'" in shown
    assert "missing jinja2; run: pip install 'vislang[report]'" in shown
