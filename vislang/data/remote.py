"""Files at addresses such as ``s3://bucket/a.png``: read through fsspec and kept in the cache until they change."""

from __future__ import annotations

import hashlib
import os
import posixpath
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from vislang.cache import cache_folder, writing
from vislang.capabilities import Progress
from vislang.data.problems import DataError
from vislang.errors import UserError

SCHEMES = ("https", "http", "s3", "gs", "hf", "memory")
"""The schemes of addresses. The extra ``remote`` installs what they need, except for ``gs`` (gcsfs)."""

ATTEMPTS = 4
"""How often a failing request is tried, unless the file is missing or access is denied."""

WAIT = 0.5
"""Seconds before the second try; the time doubles with each further one."""

VERSION = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "created", "md5Hash", "size")
"""Properties of a file, as file systems call them, that change with its content."""

Found = TypeVar("Found")


class RemoteError(UserError):
    """An address that cannot be read: no connection, access denied, or a package is missing. The record is not bad."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address; see :class:`~vislang.document.Stored`."""

    address: str

    @property
    def name(self) -> str:
        """The name in messages."""
        return self.address

    @property
    def is_there(self) -> bool:
        """Whether the file exists.

        Raises:
            RemoteError: the server does not answer.
        """
        try:
            _version(self.address)
        except FileNotFoundError:
            return False
        return True

    def read(self) -> bytes:
        """The content of the file, from the cache if it has not changed.

        Raises:
            FileNotFoundError: there is no such file.
            RemoteError: the address cannot be read.
        """
        return local_copy(self.address).read_bytes()


Folder = Path | str
"""The folder of a file: a path, or the beginning of an address that ends with a slash."""


def is_address(text: str) -> bool:
    """Whether a text is an address and not a path.

    >>> is_address("s3://bucket/a.jsonl"), is_address("pairs:a.jsonl")
    (True, False)
    """
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme in SCHEMES


def folder_of(origin: str) -> Folder:
    """The folder of a file.

    >>> folder_of("https://host/a/b.jsonl?key=1")
    'https://host/a/'
    """
    if not is_address(origin):
        return Path(origin).parent
    return f"{origin.partition('?')[0].rpartition('/')[0]}/"


def ending_of(origin: str) -> str:
    """The extension of a file's name, in lower case.

    >>> ending_of("https://host/b.JSONL?key=1.2"), ending_of("a/b")
    ('.jsonl', '')
    """
    return PurePosixPath(origin.partition("?")[0] if is_address(origin) else Path(origin).name).suffix.lower()


def within(folder: Folder, name: str) -> Path | RemoteFile:
    """The file that a record names: an address, or a path relative to the folder of the record's file.

    >>> within("https://host/a/", "../b/1.png").address
    'https://host/b/1.png'
    """
    if is_address(name):
        return RemoteFile(name)
    if isinstance(folder, Path):
        return folder / name
    scheme, _, rest = folder.partition("://")
    host, _, below = rest.partition("/")
    path = posixpath.normpath(posixpath.join("/", below, name))
    return RemoteFile(f"{scheme}://{host}/{path.lstrip('/')}")


def matching_addresses(pattern: str) -> list[str]:
    """The addresses that match a pattern with ``*``, sorted; without ``*``, the address itself.

    Raises:
        DataError: no address matches.
        RemoteError: the addresses cannot be listed.
    """
    scheme = pattern.partition("://")[0]
    if "*" not in pattern or scheme in ("http", "https"):
        return [pattern]
    fs, path = _opened(pattern)
    found = sorted(fs.unstrip_protocol(match) for match in _tried(pattern, lambda: fs.glob(path)))
    if not found:
        raise DataError(f"{pattern}: no such file.")
    return found


def local_copy(address: str, progress: Progress | None = None) -> Path:
    """The copy of a file in the cache, which is downloaded if it is missing or outdated.

    Copies are named by the file's ETag, or by its modification time and size. A process looks up an address once. A
    file whose server reports none of these is downloaded once by each process.

    Args:
        address: the address of the file.
        progress: called with (bytes downloaded, bytes in all).

    Raises:
        FileNotFoundError: there is no such file.
        RemoteError: the address cannot be read.
        UserError: the cache cannot be written.
    """
    version, size = _version(address)
    named = hashlib.sha256(address.encode()).hexdigest()[:32]
    folder = cache_folder("remote", named[:2], named[2:4])
    copy = folder / f"{named}-{version}"
    if copy.is_file() and (size is None or copy.stat().st_size == size):
        return copy
    fs, path = _opened(address)
    with writing(folder):
        handle, unfinished = tempfile.mkstemp(dir=folder, prefix=".unfinished-")
        os.close(handle)
    try:
        _tried(address, lambda: fs.get_file(path, unfinished, callback=_callback(progress)))
        found = os.path.getsize(unfinished)
        if size is not None and found != size:
            raise RemoteError(f"{address}: the download stopped after {found:,} of {size:,} bytes. Try again.")
        os.replace(unfinished, copy)
    finally:
        Path(unfinished).unlink(missing_ok=True)
    for other in folder.glob(f"{named}-*"):
        if other != copy:
            other.unlink(missing_ok=True)
    return copy


@lru_cache(maxsize=4096)
def _version(address: str) -> tuple[str, int | None]:
    """A hash that changes with the content of a file, and the size of the file if the server reports it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    fs, path = _opened(address)
    info = _tried(address, lambda: fs.info(path))
    known = {name: info[name] for name in VERSION if info.get(name) is not None}
    named = repr(sorted(known.items())) if known.keys() - {"size"} else f"{known} of process {os.getpid()}"
    return hashlib.sha256(named.encode()).hexdigest()[:16], info.get("size")


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path there.

    Raises:
        RemoteError: a package is missing.
    """
    try:
        import fsspec

        options: dict[str, Any] = {}
        if address.startswith("http"):
            import aiohttp

            # aiohttp stops any download after five minutes by default. Only stalled connections should be stopped.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
            options = {"client_kwargs": {"timeout": timeout}}
        return fsspec.core.url_to_fs(address, **options)
    except ImportError as error:
        raise RemoteError(f"{address}: a package is missing ({error}). Run: pip install 'vislang[remote]'") from None


def _tried(address: str, request: Callable[[], Found]) -> Found:
    """The result of a request, which is repeated if it fails.

    Raises:
        FileNotFoundError: there is no such file.
        RemoteError: the address cannot be read.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return request()
        except Exception as error:
            # fsspec reports every HTTP failure as a missing file; the cause is the actual error.
            reason = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
            status = getattr(reason, "status", None)
            if isinstance(reason, FileNotFoundError) or status in (404, 410):
                raise FileNotFoundError(address) from None
            if isinstance(reason, PermissionError) or status in (401, 403):
                raise RemoteError(f"{address}: access denied ({_line(reason)}). Check the credentials.") from None
            if attempt == ATTEMPTS:
                raise RemoteError(
                    f"{address}: cannot be read after {ATTEMPTS} tries ({_line(reason)}). Is there a connection?"
                ) from None
            time.sleep(WAIT * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _callback(progress: Progress | None) -> Any:
    from fsspec.callbacks import Callback, NoOpCallback

    class Report(Callback):
        def call(self, *args: Any, **more: Any) -> None:
            assert progress is not None
            progress(self.value, self.size or 0)

    return NoOpCallback() if progress is None else Report()
