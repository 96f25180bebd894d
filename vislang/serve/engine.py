"""The queue of requests, and the one thread that runs the models.

A request becomes a job: a generator that the thread steps through, one generated token at a time. Several jobs run at
once: the thread gives each of them a step in turn. Those that generate text thereby share their passes through the
model (:class:`vislang.capabilities.Together`). A job whose client has gone, or whose time is up, ends at its next step.
A waiting job that is cancelled leaves the queue at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from vislang.errors import UserError
from vislang.serve.errors import ApiError, from_user_error
from vislang.serve.limits import Limits

Item = TypeVar("Item")
Work = Callable[[], Iterator[Item | None]]
"""What a request asks of a model: yields after each token, and None where it gives other requests a turn first. A
generator may return its last item, which its client then gets before the next step of other requests."""

log = logging.getLogger("vislang.serve")


def once(compute: Callable[[], Item]) -> Work[Item]:
    """Work of one step."""

    def work() -> Generator[Item, None, Item]:
        return compute()
        yield

    return work


class _End:
    """The last thing that a job sends: its error, if it had one."""

    def __init__(self, error: ApiError | None = None):
        self.error = error


class Job(Generic[Item]):
    """A request in the engine.

    Args:
        work: what it asks for.
        deadline: when it has to be done, on the monotonic clock.
    """

    def __init__(self, work: Work[Item], deadline: float):
        self.work, self.deadline = work, deadline
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._received: asyncio.Queue[Item | _End] = asyncio.Queue()
        self._steps: Iterator[Item | None] | None = None
        self._begun = 0.0

    def send(self, item: Item | _End) -> None:
        """Hand an item over, from the engine's thread to the request's."""
        try:
            self._loop.call_soon_threadsafe(self._received.put_nowait, item)
        except RuntimeError:
            # The server is shutting down and its loop is closed: nobody waits any more.
            self.cancelled.set()

    def step(self) -> bool:
        """Do the next step, and hand over what it yields; returns whether there may be more."""
        if self._steps is None:
            self._steps, self._begun = self.work(), time.monotonic()
        try:
            item = next(self._steps)
        except StopIteration as end:
            item, more = end.value, False
        else:
            more = True
        if item is not None:
            self.send(item)
        return more

    def close(self) -> None:
        """Give up what the work holds."""
        if isinstance(self._steps, Generator):
            self._steps.close()

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return 0.0 if self._steps is None else time.monotonic() - self._begun

    async def items(self) -> AsyncIterator[Item]:
        """What the work yields.

        Raises:
            ApiError: the work failed.
        """
        while True:
            item = await self._received.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item


class Engine:
    """Runs jobs in a thread of its own; they begin in the order of their arrival.

    Args:
        limits: how many jobs may run and wait, and how long a job may take.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._waiting: deque[Job[Any]] = deque()
        self._running: list[Job[Any]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._seconds = 1.0
        self._thread = threading.Thread(target=self._run, name="vislang-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of jobs that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """The number of jobs that run."""
        return len(self._running)

    @property
    def is_running(self) -> bool:
        """Whether jobs are run."""
        return self._thread.is_alive() and not self._closed

    async def stream(self, work: Work[Item]) -> AsyncIterator[Item]:
        """Run a job; yields what it yields. Closing the iterator cancels the job.

        Raises:
            ApiError: too many jobs wait, the job takes too long, or it fails.
        """
        job = Job(work, time.monotonic() + self.limits.seconds)
        self._enter(job)
        try:
            async for item in job.items():
                yield item
        finally:
            self._leave(job)

    async def last(self, work: Work[Item]) -> Item:
        """Run a job; returns the last thing that it yields."""
        found: list[Item] = []
        async for item in self.stream(work):
            found[:] = [item]
        return found[0]

    def close(self) -> None:
        """Cancel all jobs and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=10)

    def _enter(self, job: Job[Any]) -> None:
        with self._changed:
            if self._closed:
                raise ApiError(503, "the server is shutting down.", "shutting_down")
            # The thread may be about to begin some of those that wait: what counts is whether there is room for all.
            held = len(self._waiting) + sum(not job.cancelled.is_set() for job in list(self._running))
            if held >= self.limits.running + self.limits.waiting:
                raise self._too_many(f"the server holds {held} requests, which is the limit.")
            self._waiting.append(job)
            self._changed.notify()

    def _leave(self, job: Job[Any]) -> None:
        job.cancelled.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def _too_many(self, message: str) -> ApiError:
        after = max(1, round(self._seconds * (len(self._waiting) + 1) / self.limits.running))
        return ApiError(
            429, f"{message} Try again in {after} s.", "server_overloaded", headers={"Retry-After": str(after)}
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._running or self._closed):
                    self._changed.wait()
                if self._closed:
                    break
                late = [job for job in self._waiting if job.deadline < time.monotonic()]
                for job in late:
                    self._waiting.remove(job)
                while self._waiting and len(self._running) < self.limits.running:
                    self._running.append(self._waiting.popleft())
            for job in late:
                job.send(_End(self._too_many("the request waited for too long.")))
            for job in list(self._running):
                if (end := self._turn(job)) is not None:
                    self._running.remove(job)
                    self._end(job, end)
        error = ApiError(503, "the server is shutting down.", "shutting_down")
        for jobs in (self._running, self._waiting):
            while jobs:
                self._end(jobs.pop(), _End(error))

    def _turn(self, job: Job[Any]) -> _End | None:
        """Give a job a step; returns its end, if it has come to it."""
        if job.cancelled.is_set():
            return _End()
        if time.monotonic() > job.deadline:
            seconds = f"{self.limits.seconds:g}"
            return _End(ApiError(504, f"the request took longer than {seconds} s. Ask for less.", "timeout"))
        try:
            return None if job.step() else _End()
        except ApiError as error:
            return _End(error)
        except UserError as error:
            return _End(from_user_error(error))
        except Exception:
            # One request's failure must not end the thread that serves all others. What it was stays in the log.
            log.exception("a request failed")
            message = "the server failed at this request; its log has the reason."
            return _End(ApiError(500, message, "internal_error"))

    def _end(self, job: Job[Any], end: _End) -> None:
        self._seconds = 0.8 * self._seconds + 0.2 * job.seconds
        try:
            job.close()
        except Exception:
            log.exception("a request failed while it was closed")
        job.send(end)
