"""The queue of requests, and the one thread that runs the models.

A request becomes a job: a generator that the thread steps through, one generated token at a time. So a job whose client
has gone, or whose time is up, ends at the next token. A waiting job that is cancelled leaves the queue at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

from vislang.errors import UserError
from vislang.serve.errors import ApiError, from_user_error
from vislang.serve.limits import Limits

Item = TypeVar("Item")
Work = Callable[[], Iterator[Item]]
"""What a request asks of a model: yields after each token, or once."""

log = logging.getLogger("vislang.serve")


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

    def send(self, item: Item | _End) -> None:
        """Hand an item over, from the engine's thread to the request's."""
        try:
            self._loop.call_soon_threadsafe(self._received.put_nowait, item)
        except RuntimeError:
            # The server is shutting down and its loop is closed: nobody waits any more.
            self.cancelled.set()

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
    """Runs one job at a time, in the order of their arrival, in a thread of its own.

    Args:
        limits: how many jobs may wait, and how long a job may take.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._waiting: deque[Job[Any]] = deque()
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
            for job in self._waiting:
                job.cancelled.set()
            self._changed.notify()
        self._thread.join(timeout=10)

    def _enter(self, job: Job[Any]) -> None:
        with self._changed:
            if self._closed:
                raise ApiError(503, "the server is shutting down.", "shutting_down")
            if len(self._waiting) >= self.limits.waiting:
                raise self._too_many(f"{len(self._waiting)} requests are waiting, which is the limit.")
            self._waiting.append(job)
            self._changed.notify()

    def _leave(self, job: Job[Any]) -> None:
        job.cancelled.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def _too_many(self, message: str) -> ApiError:
        after = max(1, round(self._seconds * (len(self._waiting) + 1)))
        return ApiError(
            429, f"{message} Try again in {after} s.", "server_overloaded", headers={"Retry-After": str(after)}
        )

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                job = self._waiting.popleft()
            if job.cancelled.is_set():
                continue
            started = time.monotonic()
            if started > job.deadline:
                job.send(_End(self._too_many("the request waited for too long.")))
                continue
            job.send(_End(self._error_of(job)))
            self._seconds = 0.8 * self._seconds + 0.2 * (time.monotonic() - started)

    def _error_of(self, job: Job[Any]) -> ApiError | None:
        """Run a job to its end; returns its error."""
        try:
            for item in job.work():
                if job.cancelled.is_set():
                    return None
                if time.monotonic() > job.deadline:
                    seconds = f"{self.limits.seconds:g}"
                    return ApiError(504, f"the request took longer than {seconds} s. Ask for less.", "timeout")
                job.send(item)
        except ApiError as error:
            return error
        except UserError as error:
            return from_user_error(error)
        except Exception:
            # One request's failure must not end the thread that serves all others. What it was stays in the log.
            log.exception("a request failed")
            return ApiError(500, "the server failed at this request; its log has the reason.", "internal_error")
        return None
