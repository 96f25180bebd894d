"""OpenAI's own client against a server on a loopback port."""

from __future__ import annotations

import openai
import pytest

from tests.serve.running import picture, encoded, said, shown
from vislang.document import Document, Image
from vislang.example import Example, Text


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_a_conversation_is_a_prompt_with_examples(client, flamingo):
    messages = [shown(0, "what color?"), said("red"), shown(1, "what color?"), said("blue"), shown(2, "what color?")]
    found = client.chat.completions.create(model="flamingo", messages=messages, max_tokens=6)
    def example(number, answer=None):
        parts = [Image(encoded(picture(number))), "what color?"]
        return Example(str(number), Document(parts), None if answer is None else Text((answer,)))

    prompt = flamingo.model.prompts.render(example(2), [example(0, "red"), example(1, "blue")])
    (expected,) = flamingo.model.generate([prompt], 6)
    assert found.choices[0].message.content == expected != ""
    alone = client.chat.completions.create(model="flamingo", messages=messages[-1:], max_tokens=6)
    assert alone.choices[0].message.content != expected
    assert found.usage.prompt_tokens > alone.usage.prompt_tokens
