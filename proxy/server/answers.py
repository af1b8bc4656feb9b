"""Ready answers for requests that never become a stream (no chain has seen them): short, plain, closing."""

from email.utils import formatdate
from http import HTTPStatus


def plain_answer(status: int) -> tuple[bytes, bytes]:
    """What stands before and behind the date of an HTTP/1.1 response: nothing of the request is in it."""
    phrase = HTTPStatus(status).phrase
    body = phrase.lower().encode()
    before = b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\ndate: " % (status, phrase.encode())
    return before, b"\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

PLAIN = {status: plain_answer(status) for status in (400, 404, 405, 408, 413, 414, 417, 431, 500, 501, 502, 503, 505)}


def plain(status: int) -> bytes:
    """The ready answer for a status, with the date (RFC 9110 6.6.1); one for the class (400, 500) if there is none for it."""
    before, behind = PLAIN.get(status) or PLAIN[400 if status < 500 else 500]
    return before + formatdate(usegmt=True).encode() + behind
