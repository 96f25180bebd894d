"""The queue and the thread that runs models: order, limits, deadlines, clients that go, failures."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.serve.running import call, running, running_app, shown
from tests.serve.test_openai import COLOUR, example
from vislang.errors import UserError
from vislang.models.flamingo.decoding import TextBatch
from vislang.serve.app import make_app
from vislang.serve.engine import Engine
from vislang.serve.errors import ApiError
from vislang.serve.limits import Limits


@contextmanager
def engine_of(**limits):
    made = Engine(Limits(**limits))
    try:
        yield made
    finally:
        made.close()
        assert not made.is_running


class Blocking:
    """Work that waits to be released, and says whether it was stepped on."""

    def __init__(self):
        self.started, self.release, self.steps = threading.Event(), threading.Event(), 0

    def __call__(self):
        self.started.set()
        assert self.release.wait(10)
        for step in range(100):
            self.steps = step + 1
            yield step
            time.sleep(0.002)


async def begun(work: Blocking) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work.started.wait, 10)


def test_jobs_begin_in_the_order_of_arrival():
    done = []

    def work(number: int):
        yield number
        done.append(number)

    async def main(engine: Engine):
        return await asyncio.gather(*(engine.last(lambda n=n: work(n)) for n in range(20)))

    with engine_of() as engine:
        assert asyncio.run(main(engine)) == list(range(20))
    assert done == list(range(20))


def test_a_full_queue_says_when_to_come_back():
    async def main(engine: Engine):
        work = Blocking()
        running_one = asyncio.ensure_future(engine.last(work))
        await begun(work)
        waiting = [asyncio.ensure_future(engine.last(lambda: iter([1]))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as caught:
            await engine.last(lambda: iter([1]))
        assert caught.value.status_code == 429
        assert int(caught.value.headers["Retry-After"]) >= 1
        # A client that goes frees its place at once, although the engine is busy.
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        assert engine.waiting == 1
        more = asyncio.ensure_future(engine.last(lambda: iter([2])))
        work.release.set()
        assert await running_one == 99
        assert await waiting[1] == 1
        assert await more == 2

    with engine_of(running=1, waiting=2) as engine:
        asyncio.run(main(engine))


def test_requests_that_arrive_together_find_the_places_that_are_free():
    """Before the thread has begun any of them, all of them wait, and only those beyond both limits are refused."""

    async def main(engine: Engine):
        # The thread begins no job meanwhile.
        with engine._changed:
            asked = [asyncio.ensure_future(engine.last(lambda n=n: iter([n]))) for n in range(4)]
            await asyncio.sleep(0)
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert found[:3] == [0, 1, 2]
        assert (found[3].status_code, found[3].code) == (429, "server_overloaded")

    with engine_of(running=2, waiting=1) as engine:
        asyncio.run(main(engine))


def test_work_ends_at_the_next_step_once_its_client_has_gone():
    async def main(engine: Engine):
        work = Blocking()
        asked = asyncio.ensure_future(engine.last(work))
        await begun(work)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        work.release.set()
        assert await engine.last(lambda: iter(["next"])) == "next"
        assert work.steps == 1

    with engine_of() as engine:
        asyncio.run(main(engine))


def test_deadlines():
    async def main(engine: Engine):
        work = Blocking()
        asked = asyncio.ensure_future(engine.last(work))
        await begun(work)
        late = asyncio.ensure_future(engine.last(lambda: iter([1])))
        await asyncio.sleep(0.6)
        work.release.set()
        with pytest.raises(ApiError) as caught:
            await asked
        assert (caught.value.status_code, caught.value.code) == (504, "timeout")
        # What waited for too long was never begun: the client may try again.
        with pytest.raises(ApiError) as caught:
            await late
        assert caught.value.status_code == 429
        assert await engine.last(lambda: iter([2])) == 2

    with engine_of(seconds=0.5) as engine:
        asyncio.run(main(engine))


def test_a_failure_is_that_of_its_request_alone(caplog):
    def failing(error: Exception):
        yield 1
        raise error

    async def main(engine: Engine):
        for error, status in (
            (UserError("too long"), 400),
            (ApiError(404, "x", "y"), 404),
            (ValueError("secret"), 500),
        ):
            with pytest.raises(ApiError) as caught:
                await engine.last(lambda error=error: failing(error))
            assert caught.value.status_code == status
        assert "secret" not in caught.value.detail
        assert await engine.last(lambda: iter([2])) == 2

    with engine_of() as engine:
        asyncio.run(main(engine))
    assert "secret" in caplog.text


def test_a_closed_engine_takes_nothing():
    engine = Engine(Limits())
    engine.close()
    with pytest.raises(ApiError) as caught:
        asyncio.run(engine.last(lambda: iter([1])))
    assert caught.value.status_code == 503


# With a real model and a real server


@pytest.fixture
def slow(monkeypatch):
    """A model whose tokens take a while; ``steps`` counts them."""

    class Slow:
        steps = 0

    step = TextBatch.step

    def paused(batch):
        Slow.steps += 1
        time.sleep(0.05)
        step(batch)

    monkeypatch.setattr(TextBatch, "step", paused)
    return Slow


def until(condition, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def hanging(address: str, body: dict):
    """A client that asks, and hangs up without having read anything."""
    sent, where = json.dumps(body).encode(), urlsplit(address)
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    with socket.create_connection((where.hostname, where.port)) as sock:
        sock.sendall(f"{head}\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
        yield


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_stops_the_generation(models, slow, stream):
    body = {"model": "flamingo", "messages": [shown(0)], "max_tokens": 100, "stream": stream}
    with running({"flamingo": models["flamingo"]}) as address:
        with hanging(address, body):
            until(lambda: slow.steps >= 2)
        time.sleep(0.3)
        after = slow.steps
        time.sleep(0.3)
        assert slow.steps == after < 50
        # The next one is served.
        reply = call(address, "/v1/chat/completions", {**body, "stream": False, "max_tokens": 1})
        assert reply.status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_waiting_client_that_hangs_up_frees_its_place(models, slow, stream):
    body = {"model": "flamingo", "messages": [shown(0)], "max_tokens": 100, "stream": stream}
    app = make_app({"flamingo": models["flamingo"]}, Limits(running=1))
    engine = app.state.server.engine
    with running_app(app) as address, hanging(address, body):
        until(lambda: slow.steps >= 1)
        with hanging(address, body):
            until(lambda: engine.waiting == 1)
        # The first one still runs.
        until(lambda: engine.waiting == 0, seconds=2)


def test_too_many_requests_at_once_are_told_to_come_back(models, slow):
    body = {"model": "flamingo", "messages": [shown(0)], "max_tokens": 4}
    limits = Limits(running=1, waiting=2)
    with running({"flamingo": models["flamingo"]}, limits) as address, ThreadPoolExecutor(8) as pool:
        expected = call(address, "/v1/chat/completions", body).json["choices"]
        replies = list(pool.map(lambda _: call(address, "/v1/chat/completions", body), range(8)))
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {200, 429}
    for reply in replies:
        if reply.status == 429:
            assert int(reply.headers["retry-after"]) >= 1
            assert reply.error["code"] == "server_overloaded"
        else:
            assert reply.json["choices"] == expected


def test_an_error_inside_a_stream_is_an_event(models, monkeypatch):
    step, passes = TextBatch._step, itertools.count()

    def failing(batch, *arguments):
        if next(passes) == 3:
            raise UserError("the model's output is not a number")
        step(batch, *arguments)

    monkeypatch.setattr(TextBatch, "_step", failing)
    body = {"model": "flamingo", "messages": [shown(0)], "max_tokens": 100, "stream": True}
    with running({"flamingo": models["flamingo"]}) as address:
        reply = call(address, "/v1/chat/completions", body)
    events = reply.content.decode().strip().split("\n\n")
    assert reply.status == 200
    assert len(events) > 2
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert (error["message"], error["code"]) == ("the model's output is not a number", "invalid_request")


def test_answers_of_clients_at_once_are_those_of_each_alone(models, flamingo):
    """No client gets another one's answer."""
    numbers = list(range(4)) * 2
    expected = flamingo.generate([flamingo.prompts.render(example(n)) for n in range(4)], 4)

    def asked(number: int) -> str:
        body = {"model": "flamingo", "messages": [shown(number, COLOUR)], "max_tokens": 4}
        return call(address, "/v1/chat/completions", body).json["choices"][0]["message"]["content"]

    with running({"flamingo": models["flamingo"]}) as address, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(asked, numbers)) == [expected[number] for number in numbers]
    assert len(set(expected)) > 1
