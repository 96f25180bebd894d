"""OpenAI's own client against a server on a loopback port."""

from __future__ import annotations

import itertools
import json
from typing import Literal

import numpy as np
import openai
import pydantic
import pytest
import torch

from tests.serve.running import encoded, picture, said, shown, url_of
from vislang.capabilities import Decoding
from vislang.document import Document, Image
from vislang.example import Example, Text
from vislang.models.flamingo.decoding import TextBatch

COLOUR = "what color?"


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def ask(client):
    """Ask the Flamingo about a picture."""

    def create(messages, **settings):
        return client.chat.completions.create(model="flamingo", messages=messages, **{"max_tokens": 8, **settings})

    return create


def example(number: int, answer: str | None = None, text: str = COLOUR) -> Example:
    """The same as the message :func:`shown`, with an answer."""
    return Example(
        str(number), Document([Image(encoded(picture(number))), text]), None if answer is None else Text((answer,))
    )


def test_models_are_listed_with_what_they_can_do(client, models):
    listed = {card.id: card.abilities for card in client.models.list()}
    assert list(listed) == list(models)
    assert listed["flamingo"] == ["chat/completions", "embeddings", "rerank", "answer", "explain"]
    assert listed["data2vec"] == ["embeddings", "rerank"]
    assert "ground" in listed["vilbert"]
    dual, flamingo, vilbert = (client.models.retrieve(name) for name in ("dual", "flamingo", "vilbert"))
    assert dual.abilities == listed["dual"]
    assert (dual.architecture, dual.generates, dual.heads) == ("ContrastiveEncoder", False, {})
    assert (flamingo.architecture, flamingo.generates) == ("Flamingo", True)
    assert vilbert.heads == models["vilbert"].model.heads


def test_a_conversation_is_a_prompt_with_examples(ask, flamingo):
    messages = [shown(0, COLOUR), said("red"), shown(1, COLOUR), said("blue"), shown(2, COLOUR)]
    found = ask(messages)
    prompt = flamingo.prompts.render(example(2), [example(0, "red"), example(1, "blue")])
    (expected,) = flamingo.generate([prompt], 8)
    assert found.choices[0].message.content == expected != ""
    assert found.usage.prompt_tokens == int(flamingo.prefill(prompt).lengths[0])
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert ask(messages[-1:]).choices[0].message.content != expected


def test_two_images_with_the_same_text_get_answers_of_their_own(ask, flamingo):
    expected = flamingo.generate([flamingo.prompts.render(example(n)) for n in (0, 2)], 8)
    answers = [ask([shown(n, COLOUR)]).choices[0].message.content for n in (0, 2)]
    assert answers == expected
    assert answers[0] != answers[1]


def test_instructions_come_before_everything(ask, flamingo):
    found = ask([{"role": "system", "content": "Be short."}, shown(0, COLOUR)])
    prompt = flamingo.prompts.render(example(0))
    with_instructions = Document(["Be short.\n", *prompt.parts])
    assert found.choices[0].message.content == flamingo.generate([with_instructions], 8)[0]


def test_a_picture_alone_gets_a_caption(ask, flamingo):
    caption = flamingo.prompts.render(Example("0", Document([Image(encoded(picture(0)))])))
    assert ask([shown(0)]).choices[0].message.content == flamingo.generate([caption], 8)[0]


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 3, "n": 2}, {"stop": ["!"]}])
def test_a_stream_has_the_same_text(ask, settings):
    whole = ask([shown(2, COLOUR)], **settings)
    count = settings.get("n", 1)
    texts, reasons, usage = [""] * count, [None] * count, None
    for chunk in ask([shown(2, COLOUR)], **settings, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_a_stream_is_sent_while_it_is_generated(ask, monkeypatch):
    """The first pieces arrive although the model waits until they have been read."""
    import threading

    go_on = threading.Event()
    step, passes = TextBatch.step, itertools.count()

    def pausing(batch):
        if next(passes) == 6:
            assert go_on.wait(10)
        step(batch)

    monkeypatch.setattr(TextBatch, "step", pausing)
    before = ""
    for chunk in ask([shown(2, COLOUR)], max_tokens=12, stream=True):
        before += chunk.choices[0].delta.content or ""
        if before:
            go_on.set()
    assert go_on.is_set()


def test_the_streaming_helper(client, ask):
    whole = ask([shown(2, COLOUR)], max_tokens=12).choices[0].message.content
    settings = {"messages": [shown(2, COLOUR)], "max_tokens": 12, "stop": whole[6]}
    with client.chat.completions.stream(model="flamingo", **settings) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in events
    assert events[-1] == "content.done"
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content == whole[: whole.index(whole[6])].strip()


def test_sampling_follows_the_seed(ask):
    def sampled(seed):
        return [c.message.content for c in ask([shown(0, COLOUR)], temperature=1.5, seed=seed, n=3).choices]

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)
    assert len(set(sampled(1))) == 3


def test_stop_and_length(ask, flamingo):
    prompt = flamingo.prompts.render(example(2))
    (whole,) = flamingo.generate([prompt], 12)
    stop = whole[len(whole) // 2]
    found = ask([shown(2, COLOUR)], max_tokens=12, stop=stop).choices[0]
    assert found.message.content == whole[: whole.index(stop)].strip()
    assert found.finish_reason == "stop"
    short = ask([shown(2, COLOUR)], max_completion_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 3


def test_logprobs_are_those_of_the_model(ask, flamingo):
    choice = ask([shown(2, COLOUR)], logprobs=True, top_logprobs=2).choices[0]
    listed = choice.logprobs.content
    prompt = flamingo.prompts.render(example(2))
    ((expected,),) = flamingo.complete([prompt], Decoding(8))
    assert len(listed) == 8
    assert sum(token.logprob for token in listed) == pytest.approx(expected.log_likelihood, abs=1e-4)
    for token in listed:
        # Decoding was greedy.
        assert token.top_logprobs[0].token == token.token
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)
        assert token.top_logprobs[1].logprob <= token.logprob
    streamed = [
        token
        for chunk in ask([shown(2, COLOUR)], logprobs=True, top_logprobs=2, stream=True)
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content
    ]
    assert [token.token for token in streamed] == [token.token for token in listed]


@pytest.mark.parametrize("field", ["allowed_answers", "guided_choice"])
def test_allowed_answers_are_ranked(ask, flamingo, field):
    options = ["red", "blue", "a cat"]
    choice = ask([shown(0, COLOUR)], extra_body={field: options}).choices[0]
    (scores,) = flamingo.rank([flamingo.prompts.render(example(0))], [options])
    expected = {option: score.log_likelihood for option, score in zip(options, scores, strict=True)}
    assert choice.message.content == max(expected, key=expected.get)
    assert {own["answer"]: own["score"] for own in choice.allowed_answers} == pytest.approx(expected, abs=1e-4)
    assert choice.allowed_answers[0]["answer"] == choice.message.content
    (first, *_) = ask([shown(0, COLOUR)], extra_body={field: options}, stream=True)
    assert first.choices[0].delta.role == "assistant"


def test_a_schema_with_an_enumeration_is_a_choice(client):
    class Colour(pydantic.BaseModel):
        colour: Literal["red", "blue"]

    messages = [shown(0, COLOUR)]
    parsed = client.chat.completions.parse(model="flamingo", messages=messages, response_format=Colour)
    plain = client.chat.completions.create(
        model="flamingo", messages=messages, extra_body={"structured_outputs": {"choice": ["red", "blue"]}}
    )
    assert parsed.choices[0].message.parsed.colour == plain.choices[0].message.content
    assert json.loads(parsed.choices[0].message.content) == {"colour": plain.choices[0].message.content}


@pytest.mark.parametrize(
    ("settings", "param", "words"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "call no tools"),
        ({"frequency_penalty": 1.0}, "frequency_penalty", "not supported"),
        ({"n": 3}, "n", "Set a temperature"),
        ({"n": 100, "temperature": 1}, "n", "limit is 8"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "up to four"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format", "json_schema that is an enumeration"),
        ({"extra_body": {"allowed_answers": ["red"]}}, "allowed_answers", "two or more different"),
        ({"extra_body": {"allowed_answers": ["a", "b"], "guided_choice": ["a", "b"]}}, "guided_choice", "both say"),
        ({"extra_body": {"head": "answers"}}, "head", "has no heads"),
    ],
)
def test_what_is_not_supported_is_an_error_that_names_the_field(ask, settings, param, words):
    with pytest.raises(openai.BadRequestError) as caught:
        ask([shown(0, COLOUR)], **settings)
    assert caught.value.param == param
    assert words in caught.value.message
    assert caught.value.code


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "at least 1 item"),
        ([said("red")], "must have the role user"),
        ([shown(0, COLOUR), said("red")], "must have the role user"),
        ([shown(0, COLOUR), {"role": "system", "content": "x"}, shown(1)], "before all other"),
        ([{"role": "user", "content": "  "}], "empty"),
        ([{"role": "user", "content": []}], "empty"),
        ([{"role": "tool", "content": "x", "tool_call_id": "1"}], "role"),
        ([{"role": "assistant", "content": shown(0)["content"]}, shown(0)], "role user"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "text"),
        ([shown(0, "what color? " * 100)], "language model has 128 positions"),
    ],
)
def test_messages_that_make_no_prompt_are_errors(ask, messages, words):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(messages)
    assert words in caught.value.message
    assert caught.value.param.startswith("messages")


def test_an_error_of_the_prompt_has_a_status_in_a_stream_too(ask):
    with pytest.raises(openai.BadRequestError, match="positions"):
        ask([shown(0, "what color? " * 100)], stream=True)


def test_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt", messages=[shown(0)])
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "flamingo" in caught.value.message


def test_what_a_model_cannot_do_says_what_it_can(client):
    with pytest.raises(openai.BadRequestError, match=r"generates no text.*allowed_answers.*/v1/embeddings"):
        client.chat.completions.create(model="dual", messages=[shown(0)])
    with pytest.raises(openai.BadRequestError, match="It answers /v1/embeddings"):
        client.chat.completions.create(model="data2vec", messages=[shown(0)])
    with pytest.raises(openai.BadRequestError, match="gives no vectors"):
        client.embeddings.create(model="vilbert", input="a red shape")
    with pytest.raises(openai.BadRequestError, match="no examples and no instructions"):
        client.chat.completions.create(
            model="vilbert", messages=[shown(0, COLOUR), said("red"), shown(1, COLOUR)], extra_body={"head": "answers"}
        )


def test_vectors_of_texts_and_images(client, models):
    dual = models["dual"].model
    texts = ["a red shape", "blue"]
    # The client asks for base64 and decodes it.
    found = client.embeddings.create(model="dual", input=texts)
    expected = dual.embed_texts(texts)
    torch.testing.assert_close(torch.tensor([row.embedding for row in found.data]), expected)
    floats = client.embeddings.create(model="dual", input="blue", encoding_format="float")
    np.testing.assert_allclose(floats.data[0].embedding, expected[1].numpy(), rtol=1e-5, atol=1e-6)
    images = client.embeddings.create(model="dual", input=[{"image": url_of(1)}, {"text": "blue"}])
    own = dual.embed_images([Image(encoded(picture(1)))])
    torch.testing.assert_close(torch.tensor(images.data[0].embedding), own[0])
    torch.testing.assert_close(torch.tensor(images.data[1].embedding), expected[1])
    width = len(floats.data[0].embedding)
    assert client.embeddings.create(model="dual", input="blue", dimensions=width).data[0].index == 0


@pytest.mark.parametrize("name", ["flamingo", "data2vec", "finetuned"])
def test_each_model_with_vectors_embeds_an_image(client, models, name):
    found = client.embeddings.create(model=name, input=[{"image": url_of(1)}])
    expected = models[name].model.embed([Document([Image(encoded(picture(1)))])])
    torch.testing.assert_close(torch.tensor(found.data[0].embedding), expected[0].float())


@pytest.mark.parametrize(
    ("settings", "param", "words"),
    [
        ({"input": [1, 2, 3]}, "input", "check_embedding_ctx_length=False"),
        ({"input": []}, "input", "at least one"),
        ({"input": "  "}, "input[0]", "empty"),
        ({"input": "blue", "dimensions": 3}, "dimensions", "dimensions"),
        ({"input": ["a"] * 300}, "input", "limit is 256"),
    ],
)
def test_inputs_that_cannot_be_embedded(client, settings, param, words):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="dual", **settings)
    assert words in caught.value.message
    assert caught.value.param == param
