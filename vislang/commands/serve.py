"""``vislang serve``: an HTTP server with OpenAI's API."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vislang.commands.by_server import token_of
from vislang.commands.options import optional_positionals, repeated
from vislang.commands.pack import opened_pack, pack_path
from vislang.console import messages
from vislang.errors import UserError, needs

if TYPE_CHECKING:
    from vislang.search.query import Searcher
    from vislang.serve.limits import Limits
    from vislang.serve.served import Served


@dataclass(frozen=True)
class Serve:
    """Serve models over HTTP, with OpenAI's API (docs/serve.md).

    Attributes:
        models: folders of models or Hub ids, each as MODEL or NAME=MODEL; with examples from vislang pack as MODEL@FILE
        index: an index that vislang index made, as FOLDER or NAME=FOLDER, to be searched; repeat it for more
        reports: a folder, such as runs, whose reports are listed on the page; repeat it for more
        host: address to listen on; any other than this machine's own needs a token
        port: port to listen on; 0 takes a free one
        token: every request but /health and the page must have it (default: the variable VISLANG_TOKEN)
        insecure: listen on other addresses without a token
        allow_host: another name by which clients may call the server
        allow_origin: a web page's origin, such as https://example.org, whose scripts may use the server
        remote_images: a host whose images may be fetched, such as images.example.org or .example.org
        max_images: greatest number of images in a request
        max_tokens: greatest number of generated tokens of an answer
        max_body_mb: greatest size of a request, in megabytes
        max_running: greatest number of requests that are answered at once
        max_waiting: greatest number of requests that wait
        cache_mb: memory for the examples of prompts that were read before, in megabytes for each model; 0 keeps none
        timeout: seconds that a request may take once it has arrived
        device: where the models run: auto, cpu, cuda or mps
    """

    models: list[str] = optional_positionals()
    index: list[str] = repeated("INDEX")
    reports: list[str] = repeated("FOLDER")
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    insecure: bool = False
    allow_host: list[str] = repeated("NAME")
    allow_origin: list[str] = repeated("ORIGIN")
    remote_images: list[str] = repeated("HOST")
    max_images: int = 32
    max_tokens: int = 512
    max_body_mb: int = 20
    max_running: int = 8
    max_waiting: int = 64
    cache_mb: int = 512
    timeout: float = 120.0
    device: str = "auto"

    def run(self) -> int:
        """Serve until the process is stopped; returns 0.

        Raises:
            UserError: a model cannot be opened, or the settings would let strangers in.
        """
        needs("fastapi", "serve", "a server")
        needs("uvicorn", "serve", "a server")
        if not (self.models or self.index or self.reports):
            raise UserError("give a model, --index or --reports. See vislang serve --help.")
        for folder in self.reports:
            if not Path(folder).is_dir():
                raise UserError(f"--reports {folder}: no such folder.")
        sources, folders = named(self.models), indexed(self.index)
        token = token_of(self.token)
        self._must_be_safe(token)
        limits = self._limits()
        from vislang.serve.app import make_app
        from vislang.serve.process import listen

        # They name what clients sent, and Python keeps each one that is new.
        warnings.simplefilter("ignore")
        models, indexes = self._opened(sources), self._searchers(folders)
        app = make_app(
            models,
            limits,
            token=token,
            hosts=["localhost", self.host, *self.allow_host],
            origins=self.allow_origin,
            fetch=self._fetch(),
            indexes=indexes,
            reports=[Path(folder).resolve() for folder in self.reports],
        )
        for name, served in models.items():
            messages.print(f"{name}: {', '.join(served.abilities)}", markup=False)
        for name, searcher in indexes.items():
            messages.print(f"{name}: index of {searcher.folder}", markup=False)
        listen(app, self.host, self.port, self.timeout)
        return 0

    def _must_be_safe(self, token: str | None) -> None:
        from vislang.serve.security import is_loopback

        if token is None and not self.insecure and not is_loopback(self.host):
            raise UserError(
                f"--host {self.host}: other machines can reach this address. Give a --token, or --insecure if "
                "anyone may use the server."
            )
        if "*" in self.allow_origin and token is None:
            raise UserError("--allow-origin *: any web page could use the server. Give a --token.")
        if not 0 <= self.port < 65536:
            raise UserError(f"--port {self.port}: a port is a number from 0 to 65535.")

    def _limits(self) -> Limits:
        from vislang.serve.limits import Limits

        for field in fields(self):
            if (field.name.startswith("max_") or field.name == "timeout") and not getattr(self, field.name) > 0:
                raise UserError(f"--{field.name.replace('_', '-')} must be above 0.")
        if self.cache_mb < 0:
            raise UserError("--cache-mb must not be negative.")
        body = self.max_body_mb * 2**20
        return Limits(
            body_bytes=body,
            bodies_bytes=max(Limits.bodies_bytes, body),
            images=self.max_images,
            new_tokens=self.max_tokens,
            running=self.max_running,
            waiting=self.max_waiting,
            prefix_bytes=self.cache_mb * 2**20,
            seconds=self.timeout,
        )

    def _fetch(self):
        from vislang.serve.remote import fetch

        if not self.remote_images:
            return None
        return lambda url: fetch(url, self.remote_images)

    def _searchers(self, folders: dict[str, Path]) -> dict[str, Searcher]:
        """The indexes by their names, with their models open."""
        from vislang.search.query import Searcher
        from vislang.train.device import device_of

        return {name: Searcher(folder, device=device_of(self.device)) for name, folder in folders.items()}

    def _opened(self, sources: dict[str, Source]) -> dict[str, Served]:
        """The models by their names; one that is served with several packs is opened once."""
        from vislang.models.loading import load
        from vislang.serve.served import Served
        from vislang.train.device import device_of

        device, found = device_of(self.device), {}
        models = {model: load(model, device) for model in dict.fromkeys(source.model for source in sources.values())}
        for name, (source, pack) in sources.items():
            model = models[source]
            found[name] = Served(name, model, None if pack is None else opened_pack(model, source, pack))
        return found


class Source(NamedTuple):
    """A model as it is given: a folder or a Hub id, and a pack of examples."""

    model: str
    pack: Path | None = None


def source_of(given: str) -> Source:
    """A model, or a model and a pack with an @ between them.

    >>> source_of("runs/demo/model@bolts.pack")
    Source(model='runs/demo/model', pack=PosixPath('bolts.pack'))

    Raises:
        UserError: there is no such pack.
    """
    model, mark, pack = given.rpartition("@")
    if not mark or Path(given).exists():
        return Source(given)
    return Source(model, pack_path(Path(pack)))


def named(models: list[str]) -> dict[str, Source]:
    """The models by their names: NAME of NAME=MODEL, or the name of the pack, of a run's folder, or a Hub id.

    >>> list(named(["runs/demo/model", "shapes=runs/shapes/model", "org/name"]))
    ['demo', 'shapes', 'org/name']

    Raises:
        UserError: two models have the same name, or there is no such pack.
    """
    found: dict[str, Source] = {}
    for given in models:
        name, mark, rest = given.partition("=")
        if not mark or Path(given).exists():
            name, rest = "", given
        source = source_of(rest)
        if not name:
            name = _name_of(source.model) if source.pack is None else source.pack.stem
        if not source.model or name in found:
            problem = "there is no model" if not source.model else f"two models are called {name}"
            raise UserError(f"{given}: {problem}. Write NAME=MODEL.")
        found[name] = source
    return found


def indexed(folders: list[str]) -> dict[str, Path]:
    """The folders of indexes by their names: NAME of NAME=FOLDER, or the folder's own without its ending.

    >>> indexed(["photos.index", "old=backup/photos.index"])
    {'photos': PosixPath('photos.index'), 'old': PosixPath('backup/photos.index')}

    Raises:
        UserError: two indexes have the same name.
    """
    found: dict[str, Path] = {}
    for given in folders:
        name, mark, rest = given.partition("=")
        if not mark or Path(given).exists():
            name, rest = "", given
        folder = Path(rest)
        name = name or folder.resolve().stem
        if not rest or name in found:
            problem = "there is no folder" if not rest else f"two indexes are called {name}"
            raise UserError(f"--index {given}: {problem}. Write NAME=FOLDER.")
        found[name] = folder
    return found


def _name_of(model: str) -> str:
    path = Path(model)
    # A run's model is in its folder "model".
    return path.resolve().parent.name if path.name == "model" else path.name if path.is_dir() else model
