"""Several requests at once: they share passes, their examples are read once, and what is over gives way at once."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.models.flamingo.test_together import CLOSE
from tests.serve.running import call, running, running_app, said, shown
from tests.serve.test_engine import engine_of, hanging, until
from tests.serve.test_openai import COLOUR, example
from vislang.capabilities import Decoding
from vislang.document import Document
from vislang.example import Example
from vislang.models.flamingo.collate import PromptTooLong
from vislang.models.flamingo.decoding import TextBatch
from vislang.serve.app import make_app
from vislang.serve.conversation import Conversation
from vislang.serve.engine import Engine, once
from vislang.serve.errors import ApiError
from vislang.serve.limits import Limits
from vislang.serve.reader import Reader
from vislang.serve.served import Served, generate

SHOTS = [shown(1, COLOUR), said("blue"), shown(2, COLOUR), said("red")]


def completion(address: str, messages, model: str = "flamingo", **settings) -> dict:
    reply = call(address, "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 8, **settings})
    assert reply.status == 200, reply.content
    return reply.json


def metrics(address: str) -> dict[str, float]:
    found = re.findall(r"^(vislang_\w+) (\S+)$", call(address, "/metrics").content.decode(), re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_prompts_that_wait_are_read_together(models, flamingo, monkeypatch):
    """Four prompts in one pass, after the same answers as alone; that of a prompt that is too long is an error, and a
    client that has gone is not waited for."""
    served, batches = Served("flamingo", flamingo, reader=Reader(flamingo, 0)), []
    asked = [example(n) for n in range(4)]
    expected = [flamingo.generate([flamingo.prompts.render(own)], 6)[0] for own in asked]
    each = type(flamingo).prefill_each
    monkeypatch.setattr(
        type(flamingo),
        "prefill_each",
        lambda own, rests, state: (batches.append(len(rests)), each(own, rests, state))[1],
    )

    def begun(question: Example):
        steps = generate(served, Conversation("", (), question), Decoding(6))
        assert next(steps) is None
        return steps

    def last(steps) -> str:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value.texts[0].text

    works = [begun(own) for own in asked]
    assert [last(steps) for steps in works] == expected
    assert batches == [4]
    long = Example("long", Document(["red " * 500]))
    works = [begun(own) for own in (asked[0], long, asked[1], asked[2])]
    works[3].close()
    assert last(works[0]) == expected[0]
    with pytest.raises(PromptTooLong):
        last(works[1])
    assert last(works[2]) == expected[1]
    # After the mistake, one by one.
    assert batches[1:] == [3, 1, 1, 1]


def test_requests_at_once_share_passes_and_answers_are_those_of_each_alone(models, monkeypatch):
    """Different prompts, lengths, seeds and stops; each reply is that of the request alone."""
    bodies = [
        {"messages": [*SHOTS[: 2 * (n % 3)], shown(n, COLOUR)], "max_tokens": 3 + n, "temperature": n % 2, "seed": n}
        for n in range(8)
    ]
    rows = []
    step = TextBatch.step
    monkeypatch.setattr(
        TextBatch, "step", lambda batch: (rows.append(len(batch.texts)), time.sleep(0.01), step(batch))[2]
    )
    with running({"flamingo": models["flamingo"]}) as address, ThreadPoolExecutor(8) as pool:
        alone = [completion(address, **body, logprobs=True)["choices"][0] for body in bodies]
        assert max(rows) == 1
        together = list(pool.map(lambda body: completion(address, **body, logprobs=True)["choices"][0], bodies))
        assert metrics(address)["vislang_running_requests"] == 0
    assert max(rows) > 1
    for ours, theirs in zip(together, alone, strict=True):
        assert ours["message"] == theirs["message"]
        assert ours["finish_reason"] == theirs["finish_reason"]
        values, expected = ([t["logprob"] for t in each["logprobs"]["content"]] for each in (ours, theirs))
        assert values == pytest.approx(expected, rel=0, abs=CLOSE["atol"])


def test_the_examples_of_prompts_are_read_once(models, flamingo, monkeypatch):
    read = []
    prefill = flamingo.prefill
    monkeypatch.setattr(
        flamingo, "prefill", lambda document, state=None: read.append(document) or prefill(document, state)
    )
    with running({"flamingo": models["flamingo"]}) as address:
        first = completion(address, [*SHOTS, shown(5, COLOUR)], logprobs=True)
        assert [len(document.media) for document in read] == [2, 1]
        again = completion(address, [*SHOTS, shown(5, COLOUR)], logprobs=True)
        assert [len(document.media) for document in read] == [2, 1, 1]
        assert again["choices"] == first["choices"]
        ranked = call(
            address, "/v1/answer", {"model": "flamingo", "messages": [*SHOTS, shown(5, COLOUR)], "options": ["a", "b"]}
        )
        assert ranked.status == 200
        # Ranking reads the question, and the examples no more.
        assert len(read) == 3
        counts = metrics(address)
        assert (counts["vislang_prefix_hits"], counts["vislang_prefix_misses"]) == (2, 1)
        assert counts["vislang_prefix_bytes"] > 0


def test_equal_texts_with_another_image_have_another_answer(models, flamingo):
    """The kept examples are known by their images' content, not by their place."""
    other = [shown(8, COLOUR), said("blue"), *SHOTS[2:]]
    expected = []
    for numbers in ((1, 2), (8, 2)):
        shots = [example(n, answer) for n, answer in zip(numbers, ("blue", "red"), strict=True)]
        prompt = flamingo.prompts.render(example(5), shots)
        expected.append(flamingo.generate_scored([prompt], 8)[0])
    with running({"flamingo": models["flamingo"]}) as address:
        for messages, own in ((SHOTS, expected[0]), (other, expected[1]), (SHOTS, expected[0])):
            found = completion(address, [*messages, shown(5, COLOUR)], logprobs=True)["choices"][0]
            assert found["message"]["content"] == own.text
            total = sum(token["logprob"] for token in found["logprobs"]["content"])
            if found["finish_reason"] == "length":
                assert total == pytest.approx(own.log_likelihood, abs=1e-3)
    assert expected[0].log_likelihood != pytest.approx(expected[1].log_likelihood, abs=1e-3)


def test_without_a_budget_nothing_is_kept(models):
    with running({"flamingo": models["flamingo"]}, Limits(prefix_bytes=0)) as address:
        for _ in range(2):
            completion(address, [*SHOTS, shown(5, COLOUR)])
        counts = metrics(address)
    assert (counts["vislang_prefix_hits"], counts["vislang_prefix_bytes"]) == (0, 0)


@pytest.fixture
def pack(flamingo, tmp_path):
    path = tmp_path / "bolts.pack"
    flamingo.pack([example(1, "blue"), example(2, "red")], path)
    return flamingo.open_pack(path)


def test_a_pack_is_a_model_of_its_own(models, flamingo, pack, monkeypatch):
    served = {"plain": Served("plain", flamingo), "bolts": Served("bolts", flamingo, pack)}
    with running(served) as address:
        names = [card["id"] for card in call(address, "/v1/models").json["data"]]
        assert names == ["plain", "bolts"]
        read = []
        prefill = flamingo.prefill
        monkeypatch.setattr(
            flamingo, "prefill", lambda document, state=None: read.append(document) or prefill(document, state)
        )
        packed = completion(address, [shown(5, COLOUR)], "bolts", logprobs=True)
        assert [len(document.media) for document in read] == [1]
        sent = completion(address, [*SHOTS, shown(5, COLOUR)], "plain", logprobs=True)
        assert packed["choices"] == sent["choices"]
        assert packed["usage"] == sent["usage"]
        assert completion(address, [shown(5, COLOUR)], "plain", logprobs=True)["choices"] != sent["choices"]
        # Further examples follow those of the pack.
        more = [shown(3, COLOUR), said("blue"), shown(5, COLOUR)]
        packed = completion(address, more, "bolts", logprobs=True)
        assert packed["choices"] == completion(address, [*SHOTS, *more], "plain", logprobs=True)["choices"]
        for path, settings in (("/v1/answer", {"options": ["red", "blue"]}), ("/v1/explain", {"max_tokens": 4})):
            replies = [
                call(address, path, {"model": name, "messages": messages, **settings}).json
                for name, messages in (("bolts", [shown(5, COLOUR)]), ("plain", [*SHOTS, shown(5, COLOUR)]))
            ]
            for reply in replies:
                del reply["id"], reply["model"]
            assert replies[0] == replies[1]
        instructed = [{"role": "system", "content": "be brief"}, shown(5, COLOUR)]
        reply = call(address, "/v1/chat/completions", {"model": "bolts", "messages": instructed})
        assert reply.status == 400
        assert "no instructions" in reply.error["message"]


def test_a_client_that_hangs_up_gives_its_place_to_one_that_waits(models, monkeypatch):
    step = TextBatch.step
    monkeypatch.setattr(TextBatch, "step", lambda batch: (time.sleep(0.1), step(batch))[1])
    app = make_app({"flamingo": models["flamingo"]}, Limits(running=2, waiting=1))
    engine, body = app.state.server.engine, {"model": "flamingo", "messages": [shown(0)], "max_tokens": 400}
    with running_app(app) as address, hanging(address, body):
        with hanging(address, body):
            until(lambda: engine.running == 2)
            with hanging(address, body):
                until(lambda: engine.waiting == 1)
                assert call(address, "/v1/chat/completions", body).status == 429
        # The second and the third have gone, before they have written 125 tokens, the most that fit.
        until(lambda: (engine.running, engine.waiting) == (1, 0), seconds=6)
        assert completion(address, [shown(1)], max_tokens=2)
    until(lambda: engine.running == 0)
    (served,) = app.state.server.models.values()
    assert served.reader.together.texts == 0


def test_the_deadline_of_one_is_not_that_of_others(models, monkeypatch):
    step = TextBatch.step
    monkeypatch.setattr(TextBatch, "step", lambda batch: (time.sleep(0.05), step(batch))[1])
    with running({"flamingo": models["flamingo"]}, Limits(seconds=1.0)) as address, ThreadPoolExecutor(2) as pool:
        long = pool.submit(
            call, address, "/v1/chat/completions", {"model": "flamingo", "messages": [shown(0)], "max_tokens": 500}
        )
        time.sleep(0.3)
        assert completion(address, [shown(1)], max_tokens=3)
        reply = long.result()
    assert (reply.status, reply.error["code"]) == (504, "timeout")


# The engine alone


def test_jobs_take_turns():
    def counting(number: int):
        for step in range(3):
            done.append((number, step))
            yield step
        return "last"

    async def main(engine: Engine):
        blocked = asyncio.ensure_future(engine.last(once(lambda: release.wait(10))))
        jobs = [asyncio.ensure_future(engine.last(lambda n=n: counting(n))) for n in range(3)]
        await asyncio.sleep(0.05)
        release.set()
        assert await asyncio.gather(*jobs) == ["last"] * 3
        await blocked

    done, release = [], threading.Event()
    with engine_of(running=4) as engine:
        asyncio.run(main(engine))
    assert done == [(number, step) for step in range(3) for number in range(3)]


def test_work_that_ends_gives_up_what_it_holds():
    closed = []

    def work():
        try:
            for step in range(1000):
                yield step
                time.sleep(0.002)
        finally:
            closed.append(True)

    async def main(engine: Engine):
        job = asyncio.ensure_future(engine.last(work))
        await asyncio.sleep(0.05)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
        assert await engine.last(once(lambda: "next")) == "next"
        assert closed == [True]
        with pytest.raises(ApiError):
            await engine.last(late)

    def late():
        try:
            yield 1
            time.sleep(0.6)
            yield 2
        finally:
            closed.append(True)

    with engine_of(seconds=0.5) as engine:
        asyncio.run(main(engine))
    assert closed == [True, True]


def test_those_that_wait_when_the_engine_closes_are_told():
    async def main():
        engine, release = Engine(Limits(running=1)), threading.Event()
        running_one = asyncio.ensure_future(engine.last(once(lambda: release.wait(10))))
        waiting = asyncio.ensure_future(engine.last(once(lambda: 1)))
        await asyncio.sleep(0.05)
        closing = asyncio.get_running_loop().run_in_executor(None, engine.close)
        await asyncio.sleep(0.05)
        release.set()
        await closing
        assert await running_one is True
        with pytest.raises(ApiError) as caught:
            await waiting
        assert caught.value.status_code == 503
        assert (engine.running, engine.waiting) == (0, 0)

    asyncio.run(main())


def test_what_runs_when_the_engine_closes_is_told_and_counted_no_more():
    def endless():
        while True:
            yield 1
            time.sleep(0.002)

    async def main():
        engine = Engine(Limits(running=2))
        asked = [asyncio.ensure_future(engine.last(endless)) for _ in range(2)]
        await asyncio.sleep(0.05)
        await asyncio.get_running_loop().run_in_executor(None, engine.close)
        for error in await asyncio.gather(*asked, return_exceptions=True):
            assert error.status_code == 503
        assert (engine.running, engine.waiting) == (0, 0)

    asyncio.run(main())


def test_memory_of_kept_examples_is_bounded(models, flamingo):
    """However many different prompts there are."""
    size = flamingo.prefill(Document(flamingo.prompts.examples([example(1, "blue")]))).nbytes
    limits = Limits(prefix_bytes=int(2.5 * size) + 2000)
    with running({"flamingo": models["flamingo"]}, limits) as address:
        for number in range(6):
            completion(address, [shown(number, COLOUR), said("blue"), shown(7, COLOUR)], max_tokens=1)
            assert metrics(address)["vislang_prefix_bytes"] <= limits.prefix_bytes
        assert metrics(address)["vislang_prefix_bytes"] > size
