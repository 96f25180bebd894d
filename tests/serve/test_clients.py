"""Other clients, unchanged, against a server on a loopback port. All but huggingface_hub's need ``vislang[clients]``,
which is for an environment of its own: litellm wants another botocore than ``vislang[remote]``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Literal

import pytest
from huggingface_hub import InferenceClient, constants

from tests.serve.running import encoded, picture, running, said, shown, url_of
from tests.serve.test_openai import COLOUR, example

KEY = "s3cret"
WITHOUT = "needs an environment with vislang[clients]"


@pytest.fixture(scope="module")
def base(models):
    """The address of a server with a token."""
    chosen = {name: models[name] for name in ("flamingo", "dual")}
    with running(chosen, token=KEY) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def expected(flamingo) -> str:
    """The answer about picture 2 after two examples."""
    prompt = flamingo.prompts.render(example(2), [example(0, "red"), example(1, "blue")])
    return flamingo.generate([prompt], 6)[0]


MESSAGES = [shown(0, COLOUR), said("red"), shown(1, COLOUR), said("blue"), shown(2, COLOUR)]


def test_huggingface_hub(base, expected, monkeypatch):
    # Tests are without the Hub, and this client takes any server for it.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    client = InferenceClient(base_url=base, api_key=KEY)
    found = client.chat_completion(MESSAGES, model="flamingo", max_tokens=6)
    assert found.choices[0].message.content == expected
    stream = client.chat_completion(MESSAGES, model="flamingo", max_tokens=6, stream=True)
    assert "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices) == expected


def test_litellm(base, expected):
    litellm = pytest.importorskip("litellm", reason=WITHOUT)
    settings = {"model": "openai/flamingo", "api_base": base, "api_key": KEY, "messages": MESSAGES, "max_tokens": 6}
    assert litellm.completion(**settings).choices[0].message.content == expected
    stream = litellm.completion(**settings, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected
    vectors = litellm.embedding(model="openai/dual", api_base=base, api_key=KEY, input=["blue", "red"])
    assert len(vectors.data) == 2
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**settings, "model": "openai/none"})


def test_langchain(base, expected):
    langchain_openai = pytest.importorskip("langchain_openai", reason=WITHOUT)
    chat = langchain_openai.ChatOpenAI(model="flamingo", base_url=base, api_key=KEY, max_tokens=6)
    assert chat.invoke(MESSAGES).content == expected
    assert "".join(piece.content for piece in chat.stream(MESSAGES)) == expected
    own_form = [
        {"type": "image", "source_type": "base64", "mime_type": "image/png", "data": url_of(2).partition(",")[2]}
    ]
    query = {"role": "user", "content": [*own_form, {"type": "text", "text": COLOUR}]}
    assert chat.invoke([*MESSAGES[:-1], query]).content == expected
    embed = langchain_openai.OpenAIEmbeddings(
        model="dual", base_url=base, api_key=KEY, check_embedding_ctx_length=False
    )
    assert len(embed.embed_documents(["blue", "red"])) == 2


def test_langchain_sends_a_choice_as_a_schema(base):
    langchain_openai = pytest.importorskip("langchain_openai", reason=WITHOUT)
    chat = langchain_openai.ChatOpenAI(model="flamingo", base_url=base, api_key=KEY)
    colour = {"enum": ["red", "blue"], "type": "string"}
    schema = {"title": "Colour", "type": "object", "properties": {"colour": colour}, "required": ["colour"]}
    found = chat.with_structured_output(schema, method="json_schema").invoke(MESSAGES)
    assert found["colour"] in ("red", "blue")


def test_pydantic_ai(base, expected):
    pydantic_ai = pytest.importorskip("pydantic_ai", reason=WITHOUT)
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("flamingo", provider=OpenAIProvider(base_url=base, api_key=KEY))
    image = pydantic_ai.BinaryContent(encoded(picture(2)), media_type="image/png")
    agent = pydantic_ai.Agent(model, model_settings={"max_tokens": 6})
    found = agent.run_sync([COLOUR, image])
    assert found.output

    async def streamed() -> str:
        async with agent.run_stream([COLOUR, image]) as result:
            return await result.get_output()

    assert asyncio.run(streamed()) == found.output
    choosing = pydantic_ai.Agent(model, output_type=pydantic_ai.NativeOutput(Literal["red", "blue"]))
    assert choosing.run_sync([COLOUR, image]).output in ("red", "blue")


def test_llm(base, tmp_path, flamingo):
    pytest.importorskip("llm", reason=WITHOUT)
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: vislang\n  model_name: flamingo\n  api_base: {base}\n  vision: true\n  api_key_name: vislang\n"
    )
    (tmp_path / "2.png").write_bytes(encoded(picture(2)))
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}
    (expected,) = flamingo.generate([flamingo.prompts.render(example(2))], 6)
    for more in ([], ["--no-stream"]):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "llm",
                "-m",
                "vislang",
                COLOUR,
                "-a",
                str(tmp_path / "2.png"),
                "--key",
                KEY,
                "-o",
                "max_tokens",
                "6",
                *more,
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == expected.strip()
