"""vislang's own endpoints and reranking: each model answers as it does in Python."""

from __future__ import annotations

import pytest
import torch

from tests.models.test_saved_models import IMAGES
from tests.serve.running import call, data_url, encoded, picture, said, shown
from vislang.boxes import Box
from vislang.document import Document, Image
from vislang.evaluate.shot_effects import explain_shots
from vislang.example import Example, Text
from vislang.models.towers.feature_cache import FeatureCache, RecentFeatures


def sent(number: int, text: str | None = None, **more) -> dict:
    """A user message with one of the pictures that the saved models were trained on."""
    image = {"type": "image_url", "image_url": {"url": data_url(IMAGES[number].read())}}
    return {"role": "user", "content": [image, *([] if text is None else [{"type": "text", "text": text}])], **more}


def example(number: int, text: str, **more) -> Example:
    return Example(str(number), Document([Image(IMAGES[number].read()), text]), **more)


def answered(address: str, model: str, message: dict, path: str = "/v1/answer", **settings):
    reply = call(address, path, {"model": model, "messages": [message], **settings})
    assert reply.status == 200, reply.content
    return reply.json


def test_a_head_of_answers(address, models):
    found = answered(address, "vilbert", sent(0, "what colour?"), head="answers")
    (expected,) = models["vilbert"].model.decide([example(0, "what colour?")], "answers")
    assert found["way"] == "decide"
    assert found["answer"] == expected.answer == found["candidates"][0]["answer"]
    scores = {own["answer"]: own["score"] for own in found["candidates"]}
    assert scores == pytest.approx(dict(zip(expected.candidates, expected.scores, strict=True)), abs=1e-5)


def test_chat_with_a_head(address):
    messages = [sent(0, "what colour?")]
    own = answered(address, "vilbert", messages[0], head="answers")
    reply = call(address, "/v1/chat/completions", {"model": "vilbert", "messages": messages, "head": "answers"})
    assert reply.json["choices"][0]["message"]["content"] == own["answer"]
    others = [candidate["answer"] for candidate in own["candidates"][1:3]]
    body = {"model": "vilbert", "messages": messages, "head": "answers", "allowed_answers": others}
    assert call(address, "/v1/chat/completions", body).json["choices"][0]["message"]["content"] == others[0]
    unknown = call(address, "/v1/chat/completions", {**body, "allowed_answers": ["qwerty", "x"]})
    assert unknown.status == 400
    assert "does not know qwerty, x. It knows" in unknown.error["message"]


def test_a_head_of_values_and_one_of_choices(address, models):
    vilbert = models["vilbert"].model
    (value,) = vilbert.decide([example(1, "how far right?")], "value")
    assert answered(address, "vilbert", sent(1, "how far right?"), head="value")["answer"] == pytest.approx(
        value.answer, abs=1e-5
    )
    found = answered(address, "vilbert", sent(0, "it is"), options=["red", "blue"], head="choice")
    (choice,) = vilbert.decide([example(0, "it is", choices=(Document(["red"]), Document(["blue"])))], "choice")
    assert found["answer"] == ["red", "blue"][choice.answer]
    without = call(address, "/v1/answer", {"model": "vilbert", "messages": [sent(0, "it is")], "head": "choice"})
    assert without.status == 400
    assert "chooses among given options" in without.error["message"]


def test_a_model_with_several_heads_asks_for_one(address):
    reply = call(address, "/v1/answer", {"model": "vilbert", "messages": [sent(0, "what colour?")]})
    assert (reply.status, reply.error["param"]) == (400, "head")
    assert "answers (answers)" in reply.error["message"]


def test_a_fine_tuned_data2vec_labels_an_image(address, models):
    found = answered(address, "finetuned", sent(0))
    (expected,) = models["finetuned"].model.decide([Example("0", Document([IMAGES[0]]))])
    assert found["answer"] == expected.answer
    chat = call(address, "/v1/chat/completions", {"model": "finetuned", "messages": [sent(0)]})
    assert chat.json["choices"][0]["message"]["content"] == expected.answer


def test_a_dual_encoder_chooses_among_captions(address, models):
    options = ["a red shape", "a blue shape"]
    found = answered(address, "dual", sent(0), options=options)
    scores = models["dual"].model.match_all([IMAGES[0]], options)[0]
    assert (found["way"], found["score_kind"]) == ("match", "similarity")
    assert {own["answer"]: own["score"] for own in found["candidates"]} == pytest.approx(
        dict(zip(options, scores.tolist(), strict=True)), abs=1e-5
    )
    body = {"model": "dual", "messages": [sent(0)], "allowed_answers": options}
    assert call(address, "/v1/chat/completions", body).json["choices"][0]["message"]["content"] == found["answer"]


def test_a_flamingo_generates_or_ranks(address, models):
    flamingo = models["flamingo"].model
    prompt = flamingo.prompts.render(example(0, "what color?"))
    found = answered(address, "flamingo", sent(0, "what color?"), max_tokens=6)
    assert (found["way"], found["answer"]) == ("generate", flamingo.generate([prompt], 6)[0])
    ranked = answered(address, "flamingo", sent(0, "what color?"), options=["red", "blue"])
    (scores,) = flamingo.rank([prompt], ["red", "blue"])
    assert ranked["way"] == "rank"
    assert {own["answer"]: own["score"] for own in ranked["candidates"]} == pytest.approx(
        {"red": scores[0].log_likelihood, "blue": scores[1].log_likelihood}, abs=1e-4
    )


def test_boxes_are_in_pixels_of_the_image(address, models):
    head = next(name for name, kind in models["vilbert"].model.heads.items() if kind == "box")
    found = answered(address, "vilbert", sent(0, "the shape"), "/v1/ground", top_n=3)
    (expected,) = models["vilbert"].model.decide([example(0, "the shape")], head)
    assert (found["width"], found["height"]) == IMAGES[0].size
    assert len(found["boxes"]) == 3
    assert Box(**found["boxes"][0]["box"]) == expected.answer
    scores = [own["score"] for own in found["boxes"]]
    assert scores == pytest.approx(sorted(expected.scores, reverse=True)[:3], abs=1e-5)
    for model, words in (("flamingo", "no head that gives boxes"), ("none", "no such model")):
        reply = call(address, "/v1/ground", {"model": model, "messages": [sent(0, "the shape")]})
        assert reply.status in (400, 404)
        assert words in reply.error["message"]
    reply = call(address, "/v1/ground", {"model": "vilbert", "messages": [{"role": "user", "content": "the shape"}]})
    assert (reply.status, reply.error["param"]) == (400, "messages")


def test_attention_of_a_flamingo(address, models):
    flamingo = models["flamingo"].model
    found = answered(address, "flamingo", sent(2, "what color?"), "/v1/explain", max_tokens=5)
    prompt = flamingo.prompts.render(example(2, "what color?"))
    expected = flamingo.attention(prompt, 5)
    assert found["answer"] == flamingo.generate([prompt], 5)[0]
    assert [own["token"] for own in found["tokens"]] == [own.token for own in expected]
    for own, token in zip(found["tokens"], expected, strict=True):
        torch.testing.assert_close(torch.tensor(own["maps"][0]), token.maps[0][0], rtol=1e-4, atol=1e-5)


def test_gates_of_a_flamingo_and_what_its_examples_change(address, models):
    flamingo = models["flamingo"].model
    shots = [example(0, "what color?", target=Text(("red",))), example(1, "what color?", target=Text(("blue",)))]
    expected = explain_shots(flamingo, example(2, "what color?"), shots)
    messages = [sent(0, "what color?"), said("red"), sent(1, "what color?"), said("blue"), sent(2, "what color?")]
    body = {"model": "flamingo", "messages": messages, "leave_out": True, "max_tokens": 20}
    found = call(address, "/v1/explain", body).json
    assert found["answer"] == expected.answer
    assert found["log_likelihood"] == pytest.approx(expected.log_likelihood, abs=1e-4)
    assert found["changes"] == pytest.approx([effect.change for effect in expected.effects], abs=1e-4)
    assert found["change_of_all"] == pytest.approx(expected.change_of_all, abs=1e-4)
    for gates in found["gates"]:
        block = flamingo.bridge.block(gates["layer"])
        assert gates["attention"] == pytest.approx(float(block.attention_gate.tanh()), abs=1e-6)
        assert gates["feed_forward"] == pytest.approx(float(block.feed_forward_gate.tanh()), abs=1e-6)
    assert [gates["layer"] for gates in found["gates"]] == flamingo.bridge.gated_layers
    without = call(address, "/v1/explain", {**body, "messages": messages[-1:]})
    assert (without.status, without.error["param"]) == (400, "leave_out")
    vilbert = call(address, "/v1/explain", {**body, "model": "vilbert", "messages": messages[-1:]})
    assert (vilbert.status, vilbert.error["param"]) == (400, "leave_out")


def test_an_answer_that_fills_the_context_is_explained(address, models):
    flamingo = models["flamingo"].model
    shots = [example(0, "what color?", target=Text(("red",)))]

    def rendered(words: int):
        return flamingo.prompts.render(example(2, "what color?" + " red" * words), shots)

    one, two = (flamingo.collate.documents([rendered(words)]).tokens for words in (1, 2))
    words = 1 + (flamingo.collate.context_length - 12 - one) // (two - one)
    prompt, asked = rendered(words), "what color?" + " red" * words
    messages = [sent(0, "what color?"), said("red"), sent(2, asked)]
    body = {"model": "flamingo", "messages": messages, "leave_out": True, "max_tokens": 100}
    reply = call(address, "/v1/explain", body)
    assert reply.status == 200, reply.content
    found = reply.json
    assert found["answer"] == flamingo.generate([prompt], 100)[0]
    text = flamingo.fitting(prompt, found["answer"])
    assert len(text) < len(found["answer"]), "the answer does not fill the context"
    # The random model writes bytes that are no characters, so texts of tokens cannot be compared.
    assert len(found["tokens"]) == len(flamingo.collate.answer(prompt, text)) - 1 > 0
    ((score,),) = flamingo.rank([prompt], [[text]])
    assert found["log_likelihood"] == pytest.approx(score.log_likelihood, abs=1e-4)
    assert len(found["changes"]) == 1


def test_co_attention_of_a_vilbert(address, models):
    found = answered(address, "vilbert", sent(0, "what colour?"), "/v1/explain", head="answers")
    expected = models["vilbert"].model.explain(example(0, "what colour?"), "answers")
    assert found["answer"] == expected.prediction.answer
    assert found["words"] == expected.tokens
    assert len(found["regions"]) == len(expected.boxes)
    for layer, block in zip(found["layers"], expected.blocks, strict=True):
        torch.testing.assert_close(torch.tensor(layer["text_to_regions"]), block.text.mean(dim=0), rtol=1e-4, atol=1e-5)
    reply = call(address, "/v1/explain", {"model": "dual", "messages": [sent(0, "x")]})
    assert (reply.status, "shows no attention" in reply.error["message"]) == (400, True)


def rerank(address: str, **body):
    return call(address, "/v1/rerank", body)


def image(number: int) -> dict:
    return {"image": data_url(IMAGES[number].read())}


@pytest.mark.parametrize("name", ["dual", "vilbert"])
def test_images_for_a_text_and_texts_for_an_image(address, models, name):
    model, texts = models[name].model, ["a red shape", "a blue shape"]
    scores = model.match_all(IMAGES[:3], texts)
    found = rerank(address, model=name, query=texts[0], documents=[image(n) for n in range(3)]).json
    assert found["score_kind"] == "similarity"
    assert {own["index"]: own["relevance_score"] for own in found["results"]} == pytest.approx(
        dict(enumerate(scores[:, 0].tolist())), abs=1e-4
    )
    order = [own["index"] for own in found["results"]]
    assert order == scores[:, 0].argsort(descending=True).tolist()
    body = {"query": image(0), "documents": texts, "top_n": 1, "return_documents": True}
    (best,) = rerank(address, model=name, **body).json["results"]
    assert best["document"]["text"] == texts[int(scores[0].argmax())]


def test_a_flamingo_ranks_by_likelihood(address, models):
    flamingo, texts = models["flamingo"].model, ["red", "a blue cat"]
    found = rerank(address, model="flamingo", query=image(0), documents=texts).json
    prompt = flamingo.prompts.render(Example("0", Document([IMAGES[0]])))
    (scores,) = flamingo.rank([prompt], texts)
    expected = {number: own.log_likelihood / own.tokens for number, own in enumerate(scores)}
    assert found["score_kind"] == "log_likelihood"
    assert {own["index"]: own["relevance_score"] for own in found["results"]} == pytest.approx(expected, abs=1e-4)


def test_two_of_a_kind_are_compared_by_their_vectors(address, models):
    found = rerank(address, model="data2vec", query=image(0), documents=[image(1), image(0)]).json
    assert found["results"][0]["index"] == 1
    assert found["results"][0]["relevance_score"] == pytest.approx(1, abs=1e-5)
    assert (
        rerank(address, model="dual", query="a red shape", documents=["blue", "a red shape"]).json["results"][0][
            "index"
        ]
        == 1
    )
    mixed = rerank(address, model="dual", query=image(0), documents=["blue", image(0)])
    assert (mixed.status, mixed.error["param"]) == (400, "documents")


def test_a_text_that_a_model_does_not_read(address):
    reply = call(address, "/v1/answer", {"model": "vilbert", "messages": [{"role": "user", "content": "hm"}]})
    assert reply.status == 400
    assert "only together with an image" in reply.error["message"]
    reply = call(address, "/v1/answer", {"model": "dual", "messages": [shown(0), said("red"), shown(1)]})
    assert "no examples" in reply.error["message"]


def test_nothing_of_a_clients_images_is_written(address, models, monkeypatch):
    """The regions of an image that was never seen before are computed, and kept in memory alone."""
    written = []
    monkeypatch.setattr(FeatureCache, "put_named", lambda *arguments: written.append(arguments))
    new = {"role": "user", "content": [*shown(17)["content"], {"type": "text", "text": "what colour?"}]}
    answered(address, "vilbert", new, head="answers")
    assert Image(encoded(picture(17))).content_hash in models["vilbert"].model.inputs.regions.kept
    assert not written


def test_recent_features_are_the_last_ones():
    recent = RecentFeatures(2)
    for name in ("a", "b", "a", "c"):
        if recent.get_named(name) is None:
            recent.put_named(name, {"features": torch.zeros(1)})
    assert ["a" in recent, "b" in recent, "c" in recent] == [True, False, True]
