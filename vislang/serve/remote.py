"""Images at remote addresses. This module has the only function of the server that opens a connection.

A client that names an address makes the server connect to it (server-side request forgery). So nothing is fetched
unless the server was started with a list of hosts. A host is resolved once, and the address that was checked is the one
that is connected to: another answer of the name server a moment later has no effect (DNS rebinding). Redirects are not
followed.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from vislang.serve.errors import ApiError, invalid

MOST_BYTES = 20 * 2**20
"""Greatest size of a remote image."""

MOST_SECONDS = 10.0
"""Greatest time to fetch a remote image, from its name's resolution to its last byte."""

PORTS = {"http": 80, "https": 443}
"""The ports that are connected to."""

CODE = "remote_image_failed"

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses of IPv4 behind a translator."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch(url: str, hosts: Collection[str]) -> bytes:
    """The content at an address.

    Args:
        url: http or https, without user name and with the scheme's own port.
        hosts: the hosts that may be read: ``images.example.org``; ``.example.org`` for all below; ``*`` for any.

    Raises:
        ApiError: the address is not allowed, not public, or cannot be read in time.
    """
    deadline = time.monotonic() + MOST_SECONDS
    host, secure, target = _parsed(url, hosts)
    address = _public(host, PORTS["https" if secure else "http"])
    connection = _Connection(host, str(address), secure, deadline)
    # The limit of a socket is for each read; a server that sends a byte a second would never reach it.
    alarm = threading.Timer(max(0.0, deadline - time.monotonic()), connection.interrupt)
    alarm.start()
    try:
        content = _read(connection, target)
    except (OSError, http.client.HTTPException) as error:
        raise invalid(f"{host}: the image could not be fetched ({type(error).__name__}).", code=CODE) from None
    finally:
        alarm.cancel()
        connection.close()
    if time.monotonic() > deadline:
        raise invalid(f"{host}: took longer than {MOST_SECONDS:g} s.", code=CODE)
    return content


def _parsed(url: str, hosts: Collection[str]) -> tuple[str, bool, str]:
    """Host, whether it is https, and the rest of an address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _not_allowed("not a valid address") from None
    if parts.scheme not in PORTS or not host or port not in (None, PORTS.get(parts.scheme)):
        raise _not_allowed("an address is http:// or https://, with a host and the usual port")
    if "@" in parts.netloc or not url.isascii() or not url.isprintable() or any(c in url for c in ' \\"<>'):
        raise _not_allowed("the address has a user name, or characters that an address cannot have")
    host = host.rstrip(".").lower()
    if not any(_allows(rule.lower(), host) for rule in hosts):
        raise _not_allowed(f"this server reads no images from {host}")
    return host, parts.scheme == "https", f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"


def _not_allowed(message: str) -> ApiError:
    return invalid(f"{message}. Send the image itself as a data: URL.", code="remote_image_not_allowed")


def _allows(rule: str, host: str) -> bool:
    return rule in ("*", host) or (rule.startswith(".") and host.endswith(rule))


def _public(host: str, port: int) -> Address:
    """The address of a host, resolved once; an error unless all its addresses are public."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise invalid(f"{host}: no such host.", code=CODE) from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise _not_allowed(f"{host} is not a public address")
    return addresses[0]


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, also where it is wrapped into an IPv6 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was resolved before; certificates are checked for the host's name."""

    def __init__(self, host: str, address: str, secure: bool, deadline: float):
        super().__init__(f"[{host}]" if ":" in host else host, PORTS["https" if secure else "http"])
        self._address, self._secure, self._deadline = address, secure, deadline
        # http.client forgets its socket once it has read the headers of a reply that ends the connection.
        self._open: socket.socket | None = None

    def connect(self) -> None:
        """Connect to the address; the only place where a connection is opened."""
        left = max(0.1, self._deadline - time.monotonic())
        self.sock = self._open = socket.create_connection((self._address, self.port), left)
        if self._secure:
            # The handshake is apart, so that it can be interrupted, too.
            self.sock = self._open = ssl.create_default_context().wrap_socket(
                self.sock, server_hostname=self.host.strip("[]"), do_handshake_on_connect=False
            )
            self.sock.do_handshake()

    def interrupt(self) -> None:
        """End all reading, from another thread."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                # Without the farewell of TLS, which would wait for the other side.
                socket.socket.shutdown(self._open, socket.SHUT_RDWR)


def _read(connection: _Connection, target: str) -> bytes:
    """The body of the reply to GET."""
    connection.request("GET", target, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
    reply = connection.getresponse()
    if reply.status != 200:
        what = "redirects are not followed" if 300 <= reply.status < 400 else "it has no image"
        raise invalid(f"{connection.host}: replied with {reply.status}; {what}.", code=CODE)
    if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise invalid(f"{connection.host}: its reply is compressed.", code=CODE)
    content = reply.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise invalid(f"{connection.host}: the image has more than {MOST_BYTES:,} bytes.", code=CODE)
    return content
