"""Files from https URLs: the standard library's client on guarded connections, one connection for each file.

A redirect is followed by hand, so that each place it leads to passes the same checks: https only, addresses checked, at most
five. Nothing secret is sent, so nothing has to be kept from other hosts.
"""

import http.client
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from proxy.config.problem import WrongValueError
from proxy.config.remote import parse_remote
from proxy.sources.guard import FetchError, Guard

MOST_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
SLICE = 1 << 16
AGENT = "penstock"


@dataclass(frozen=True, slots=True)
class File:
    """A file; `data` is None if the source says that it has not changed."""

    data: bytes | None
    etag: str


class GuardedConnection(http.client.HTTPSConnection):
    """One that dials only what the guard admits."""

    def __init__(self, guard: Guard, host: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=guard.left(), context=context)
        self.guard = guard
        self.tls = context

    def connect(self) -> None:
        plain = self.guard.dial(self.host, self.port)
        plain.settimeout(self.guard.left())
        self.sock = self.tls.wrap_socket(plain, server_hostname=self.host)


ABSENT = (404, 410)


def get(
    guard: Guard, url: str, context: ssl.SSLContext, limit: int, etag: str = "", absent: Sequence[int] = ABSENT
) -> File | None:
    """The file; None if the source says by one of the statuses `absent` that there is none. Raises FetchError, OSError."""
    for _ in range(MOST_REDIRECTS + 1):
        try:
            parse_remote(url)
        except WrongValueError as error:
            raise FetchError(f"it redirects: {error.problem}", "write the URL of the file itself", lasting=True) from None
        parts = urlsplit(url)
        assert parts.hostname is not None
        connection = GuardedConnection(guard, parts.hostname, parts.port or 443, context)
        try:
            headers = {"user-agent": AGENT, "accept": "*/*", "accept-encoding": "identity"}
            if etag:
                headers["if-none-match"] = etag
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=headers)
            response = connection.getresponse()
            if response.status in REDIRECTS and (location := response.headers.get("location")):
                url = urljoin(url, location)
                continue
            if response.status == 304 and etag:
                return File(None, etag)
            if response.status in absent:
                return None
            if response.status != 200:
                raise FetchError(f"the source answers {response.status}", "look at the source")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise FetchError("the source compresses the file unasked", "have it served as it is", lasting=True)
            return File(read(guard, connection, response, limit), response.headers.get("etag", ""))
        except http.client.HTTPException as error:
            raise FetchError(f"the source speaks no proper HTTP: {type(error).__name__}", "look at the source") from None
        finally:
            connection.close()
    raise FetchError(f"it redirects more than {MOST_REDIRECTS} times", "write the URL of the file itself", lasting=True)


def read(guard: Guard, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, limit: int) -> bytes:
    """The body. Raises FetchError if it is larger than the limit, or ends early."""
    announced = response.length
    if announced is not None and announced > limit:
        raise TooLargeError(announced, limit)
    data = bytearray()
    while True:
        if connection.sock is not None:
            connection.sock.settimeout(guard.left())
        piece = response.read1(SLICE)
        if not piece:
            break
        data += piece
        if len(data) > limit:
            raise TooLargeError(len(data), limit)
        guard.left()
    if announced is not None and len(data) != announced:
        raise FetchError("the answer ends early", "try again")
    return bytes(data)


class TooLargeError(FetchError):
    """More than the limit."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"it has {size} bytes or more, over the limit of {limit}",
            f"write limits: {{module: {-(-size // (1 << 20))}MiB}} if that is right",
            lasting=True,
        )
