"""``vislang pack``, and packs in ask, eval and serve."""

import json

import pytest

from tests import tiny
from tests.commands.test_ask import shots
from vislang.cli import main
from vislang.commands.serve import named


@pytest.fixture
def saved(towers, pictures) -> str:
    tiny.flamingo(towers).save(pictures / "model")
    return str(pictures / "model")


@pytest.fixture
def pack(saved, pictures, capsys) -> str:
    lines = (pictures / "my.jsonl").read_text().splitlines()
    (pictures / "examples.jsonl").write_text("\n".join(lines[:4]) + "\n")
    out = str(pictures / "bolts.pack")
    assert main(["pack", saved, str(pictures / "examples.jsonl"), "-o", out]) == 0
    assert "4 examples of " in capsys.readouterr().out
    return out


def test_asked_after_a_pack_as_after_the_examples(saved, pack, pictures, capsys):
    asked = ["ask", saved, str(pictures / "8.png"), "what color?"]
    for more in (["--shot", str(pictures / "5.png"), "blue"], ["--options", "red,blue,a cat"]):
        assert main([*asked, *shots(pictures, 4), *more]) == 0
        sent = capsys.readouterr().out
        assert main([*asked, "--pack", pack, *more]) == 0
        assert capsys.readouterr().out == sent
    assert main([*asked, *more]) == 0
    assert capsys.readouterr().out != sent


def test_evaluated_after_a_pack(saved, pack, pictures, capsys):
    (pictures / "queries.jsonl").write_text("\n".join((pictures / "my.jsonl").read_text().splitlines()[8:14]) + "\n")
    evaluated = ["eval", saved, "--data", str(pictures / "queries.jsonl"), "--json"]
    out = pictures / "out"
    assert main([*evaluated, "--pack", pack, "--out", str(out)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["pack"] == pack
    assert values["n"] == 6
    assert "blind" in values
    first = json.loads((out / "predictions.jsonl").read_text().splitlines()[0])
    assert first["prompt"].count("<end>") == 4
    assert first["prompt"].endswith("Question: what color? Answer:")
    # The card has the pack, so the evaluation can be run again; not with another pack.
    assert main(["eval", "--like", str(out / "card.json")]) == 0
    assert "the same prompts and answers" in capsys.readouterr().out
    assert main(["pack", saved, str(pictures / "queries.jsonl"), "-o", pack]) == 0
    assert main(["eval", "--like", str(out / "card.json")]) == 2
    assert "pack_sha256" in capsys.readouterr().err


def test_names_of_served_models(pictures, pack):
    sources = named([str(pictures / "model"), f"small={pictures / 'model'}@{pack}", f"{pictures / 'model'}@{pack}"])
    assert list(sources) == [pictures.name, "small", "bolts"]
    assert [source.pack is None for source in sources.values()] == [True, False, False]
    assert {source.model for source in sources.values()} == {str(pictures / "model")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "MODEL", "IMAGE", "what?", "--pack", "none.pack"], "none.pack: cannot be read"),
        (["ask", "MODEL", "IMAGE", "what?", "--pack", "IMAGE"], "0.png: no pack, or damaged"),
        (["ask", "MODEL", "IMAGE", "what?", "--pack", "PACK", "--drop-examples"], "cannot be dropped"),
        (["ask", "OTHER", "IMAGE", "what?", "--pack", "PACK"], "--pack: no effect"),
        (["eval", "MODEL", "--data", "DATA", "--pack", "none.pack"], "none.pack: cannot be read"),
        (
            ["eval", "MODEL", "--data", "DATA", "--pack", "PACK", "--shots", "2"],
            "--pack: not used together with --shots",
        ),
        (
            ["eval", "MODEL", "--data", "DATA", "--pack", "PACK", "--abstain", "0.1"],
            "--abstain: not used together with",
        ),
        (["serve", "MODEL@none.pack"], "none.pack: cannot be read"),
        (["serve", "bolts=@PACK"], "there is no model. Write NAME=MODEL."),
        (["serve", "OTHER@PACK"], "reads no examples, so it has no packs"),
        (["serve", "MODEL", "--cache-mb", "-1"], "--cache-mb must not be negative"),
        (["serve", "MODEL", "--max-running", "0"], "--max-running must be above 0"),
        (["pack", "OTHER", "DATA", "-o", "OUT"], "reads no examples, so it has no packs"),
        (["pack", "MODEL", "UNLABELLED", "-o", "OUT"], "unlabelled.jsonl: 1 bad record"),
        (["pack", "MODEL", "EMPTY", "-o", "OUT"], "empty.jsonl: contains no records"),
        (["pack", "MODEL", "DATA", "-o", "none/out.pack"], "there is no folder none. Create it first"),
        (["pack", "MODEL", "DATA", "-o", "OUT"], "give fewer examples"),
    ],
)
def test_mistakes_are_named(saved, pack, pictures, capsys, arguments, message):
    from tests.models.test_saved_models import SAVED

    (pictures / "empty.jsonl").write_text("")
    (pictures / "unlabelled.jsonl").write_text('{"image": "0.png", "question": "what color?"}\n')
    places = {
        "MODEL": saved,
        "PACK": pack,
        "IMAGE": str(pictures / "0.png"),
        "OTHER": str(SAVED / "data2vec-finetuned"),
        "DATA": str(pictures / "my.jsonl"),
        "UNLABELLED": str(pictures / "unlabelled.jsonl"),
        "EMPTY": str(pictures / "empty.jsonl"),
        "OUT": str(pictures / "failed.pack"),
    }
    for word, place in places.items():
        arguments = [
            place if part == word else part.replace(word, place) if "@" in part else part for part in arguments
        ]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (pictures / "failed.pack").exists()
