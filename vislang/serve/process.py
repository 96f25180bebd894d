"""The process that listens: it answers what it has accepted before it ends."""

from __future__ import annotations

import math
import signal
from types import FrameType

import uvicorn
from fastapi import FastAPI


class Listener(uvicorn.Server):
    """uvicorn's server. After SIGTERM it accepts no more connections, answers all requests that it has, and returns, so
    that the process can end with status 0; uvicorn itself would then end it by the signal."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called with each signal."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def listen(app: FastAPI, host: str, port: int, seconds: float) -> None:
    """Serve until the process gets SIGTERM or SIGINT.

    Args:
        app: the application.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        seconds: greatest time of a request, which is also that of the end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="info",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(seconds) + 1,
    )
    Listener(config).run()
