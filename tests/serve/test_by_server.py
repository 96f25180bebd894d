"""``vislang ask --server`` and ``vislang embed --server``: as with the model opened here, without opening it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse

from tests import tiny
from tests.run_docs import ROOT
from tests.serve.running import picture, running, running_app
from vislang.cli import main
from vislang.document import Document
from vislang.errors import UserError
from vislang.serve.client import embedding_input
from vislang.serve.limits import Limits


@pytest.fixture(scope="module")
def saved(models, tmp_path_factory):
    """The folders of the served models, by their names."""
    folder = tmp_path_factory.mktemp("saved")
    for name in ("flamingo", "vilbert", "dual", "data2vec", "finetuned"):
        models[name].model.save(folder / name)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with images, in which commands run."""
    for number in range(4):
        picture(number).save(tmp_path / f"{number}.png")
    picture(0).save(tmp_path / "photo.tif")
    picture(0).save(tmp_path / "film.gif", save_all=True, append_images=[picture(1), picture(3)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def printed(capsys):
    """What a command prints; it must succeed."""

    def run(*words: str) -> str:
        assert main(list(words)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


SHOTS = ("--shot", "1.png", "blue", "--shot", "2.png", "what color? red")


@pytest.mark.parametrize(
    "words",
    [
        ("0.png", "what color?"),
        ("0.png",),
        ("0.png", "what color?", *SHOTS),
        ("0.png", "what color?", "--options", "red,blue,a cat"),
        ("0.png", "what color?", "--options", "red,blue", *SHOTS),
        ("0.png", "what color?", "--temperature", "1.5", "--seed", "3", "--max-new-tokens", "6"),
        ("0.png", "what color?", "--temperature", "1.5", "--top-k", "9", "--returns", "3"),
        ("photo.tif", "what color?"),
        ("film.gif", "what color?"),
    ],
    ids=" ".join,
)
def test_a_served_flamingo_answers_as_here(address, saved, here, printed, words):
    own = printed("ask", str(saved / "flamingo"), *words)
    assert own.strip()
    assert printed("ask", "flamingo", *words, "--server", address) == own


def test_a_text_that_ends_an_answer(address, saved, here, printed):
    whole = printed("ask", str(saved / "flamingo"), "0.png").strip()
    words = ("0.png", f"--stop={whole[len(whole) // 2]}")
    own = printed("ask", str(saved / "flamingo"), *words)
    assert own.strip() != whole
    assert printed("ask", "flamingo", *words, "--server", f"{address}/v1/") == own


def test_served_heads_answer_as_here(address, models, saved, here, printed):
    # The task "pair" compares two images.
    heads = {name: kind for name, kind in models["vilbert"].model.heads.items() if name != "pair"}
    assert {"answers", "box", "value", "choice"} <= set(heads.values())
    for head, kind in heads.items():
        words = ["0.png", "what colour?", "--head", head, *(["--options", "red,blue"] if kind == "choice" else [])]
        own = printed("ask", str(saved / "vilbert"), *words)
        assert own.strip()
        assert printed("ask", "vilbert", *words, "--server", address) == own
    own = printed("ask", str(saved / "finetuned"), "0.png")
    assert printed("ask", "finetuned", "0.png", "--server", address) == own


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ask", "flamingo", "0.png", "--beams", "2"], "--beams: not possible together with --server"),
        (["ask", "flamingo", "0.png", "--pack", "x.pack"], "--pack: not possible together with --server"),
        (["ask", "flamingo", "0.png", "--device", "cpu"], "--device: not possible together with --server"),
        (["ask", "flamingo", "0.png", "--abstain", "x"], "--abstain: not possible together with --server"),
        (["ask", "flamingo", "0.png", "--max-new-tokens", "999"], "--max-new-tokens 999: "),
        (["ask", "flamingo", "0.png", "--head", "x"], "flamingo generates text and has no heads"),
        (["ask", "flamingo", "0.png", "--temperature", "3"], "temperature: Input should be less than or equal to 2"),
        (["ask", "vilbert", "0.png", "x", "--head", "none"], "vilbert has the heads"),
        (["ask", "vilbert", "0.png", "x", *SHOTS], "--shot: no effect, because vilbert generates no text"),
        (["ask", "dual", "0.png", "x"], "dual: a ContrastiveEncoder neither generates text nor has a task head"),
        (["ask", "other", "0.png"], "serves no model other; its models are flamingo, vilbert, dual, data2vec"),
        (["ask", "flamingo", "film.mp4"], "film.mp4: servers take texts and images, no video"),
        (["embed", "flamingo", "0.png", "--device", "cpu"], "--device: not possible together with --server"),
        (["embed", "vilbert", "0.png"], "vilbert: a "),
        (["embed", "flamingo", "note.txt"], "contains no image to embed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_server_cannot_do_is_one_sentence(address, here, capsys, words, message):
    tiny.write_video(here / "film.mp4", [0, 100])
    (here / "note.txt").write_text("a shape\n")
    assert main([*words, "--server", address]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (here / "embeddings.parquet").exists()


def test_a_document_of_several_parts_is_not_embedded():
    document = Document(["a", "shape"], name="my.jsonl:3")
    with pytest.raises(UserError, match=r"my.jsonl:3: has 2 parts; a server embeds one text or one image"):
        embedding_input(document)


def test_the_token_of_a_server(models, here, printed, capsys, monkeypatch):
    flamingo = {"flamingo": models["flamingo"]}
    with running(flamingo, Limits(new_tokens=4), token="secret") as address:
        words = ["ask", "flamingo", "0.png", "--max-new-tokens", "4", "--server", address]
        answer = printed(*words, "--token", "secret")
        for wrong in ([], ["--token", "secre"]):
            assert main([*words, *wrong]) == 2
            assert "the token is wrong or missing. Give --token, or set VISLANG_TOKEN." in capsys.readouterr().err
        monkeypatch.setenv("VISLANG_TOKEN", "secret")
        assert printed(*words) == answer
        assert main(["ask", "flamingo", "0.png", "--server", address]) == 2
        assert f"{address} generates at most 4" in capsys.readouterr().err
    assert main(["ask", "flamingo", "0.png", "--token", "secret"]) == 2
    assert "--token: only used together with --server" in capsys.readouterr().err
    assert main([*words, "--token", "two words"]) == 2
    assert "printable ASCII characters without spaces" in capsys.readouterr().err


def strange() -> FastAPI:
    """A server of something else, in some places."""
    app = FastAPI()

    @app.get("/page/v1/models")
    async def page():
        return PlainTextResponse("<html>welcome</html>")

    @app.get("/other/v1/models")
    async def other():
        return {"object": "list", "data": [{"id": "flamingo", "object": "model", "owned_by": "someone"}]}

    @app.get("/broken/v1/models")
    async def broken():
        return JSONResponse(["no", "object"], 500)

    return app


@pytest.mark.parametrize("place", ["", "/page", "/other", "/broken"])
def test_another_server_is_recognised(here, capsys, place):
    with running_app(strange()) as address:
        assert main(["ask", "flamingo", "0.png", "--server", f"{address}{place}"]) == 2
    assert f"{address}{place}: not a server of vislang" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://host:port", "http://h:0"])
def test_an_address_that_is_none(here, capsys, address):
    assert main(["ask", "flamingo", "0.png", "--server", address]) == 2
    assert f"{address}: not the address of a server, such as http://127.0.0.1:8000" in capsys.readouterr().err


def test_nobody_listens(here, capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert main(["ask", "flamingo", "0.png", "--server", f"http://127.0.0.1:{port}"]) == 2
    assert f"http://127.0.0.1:{port}: cannot be reached (Connection refused)" in capsys.readouterr().err


def test_an_answer_that_breaks_off(here, capsys):
    """The server closes the connection in the middle of the stream."""
    card = {"id": "m", "architecture": "Flamingo", "abilities": [], "generates": True, "heads": {}, "max_tokens": 99}
    app = FastAPI()

    @app.get("/v1/models")
    async def models():
        return {"data": [card]}

    @app.post("/v1/chat/completions")
    async def chat():
        return PlainTextResponse('data: {"choices": [{"delta": {"content": "half an"}}]}\n\n')

    with running_app(app) as address:
        assert main(["ask", "m", "0.png", "--server", address]) == 2
    shown = capsys.readouterr()
    assert shown.out == "half an"
    assert "closed before the end of the answer" in shown.err


@pytest.mark.parametrize("name", ["flamingo", "dual"])
def test_vectors_are_those_of_the_model(address, saved, here, printed, name):
    (here / "note.txt").write_text("a red shape\n\na blue shape\n")
    files = ["0.png", "photo.tif", "1.png", *([] if name == "flamingo" else ["note.txt"])]
    printed("embed", str(saved / name), *files, "-o", "here.parquet")
    printed("embed", name, *files, "-o", "there.parquet", "--batch-size", "2", "--server", address)
    own, served = (pyarrow.parquet.read_table(here / f"{place}.parquet") for place in ("here", "there"))
    assert served["name"].to_pylist() == own["name"].to_pylist()
    rows = [np.array(table["vector"].to_pylist()) for table in (own, served)]
    # The order of summation in a matrix product depends on how many documents are embedded at once.
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-4, atol=1e-5)
    assert served.schema.metadata[b"vislang.model"] == name.encode()


ASK = """
import sys
from vislang.cli import main
status = main(sys.argv[1:])
print([name for name in ("torch", "transformers", "fastapi") if name in sys.modules])
sys.exit(status)
"""


@pytest.mark.parametrize("words", [["ask", "flamingo", "0.png"], ["embed", "flamingo", "0.png"]], ids=" ".join)
def test_nothing_heavy_is_imported(address, here, words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ASK, *words, "--server", address]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
