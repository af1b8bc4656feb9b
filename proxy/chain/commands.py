"""What the chain tells the server to do, in order. The server has nothing to decide about them."""

from dataclasses import dataclass
from typing import Final

Pairs = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class SendRequestHeaders:
    """The request's head is final: emit it to the upstream side.

    `pairs`: the head as it was when it left the chain, if filters may have edited the map since: what was held left with
    body callbacks behind it. None: as it stands.
    """

    end_stream: bool
    pairs: Pairs | None = None


@dataclass(slots=True)
class SendRequestData:
    """A piece of the request's body, to the upstream side."""

    data: bytes
    end_stream: bool


@dataclass(slots=True)
class SendRequestTrailers:
    """The request's end, after its body: trailers, as they were when they left the chain. There may be none left."""

    pairs: Pairs


@dataclass(slots=True)
class SendResponseHeaders:
    """The response's head is final: emit it to the client. `pairs`: as for the request's."""

    end_stream: bool
    pairs: Pairs | None = None


@dataclass(slots=True)
class SendResponseData:
    """A piece of the response's body, to the client."""

    data: bytes
    end_stream: bool


@dataclass(slots=True)
class SendResponseTrailers:
    """The response's end, after its body: trailers, as for the request's."""

    pairs: Pairs


@dataclass(slots=True)
class PauseRequest:
    """A filter holds more of the request than it should: read no more of it."""


@dataclass(slots=True)
class ResumeRequest:
    """Read on."""


@dataclass(slots=True)
class PauseResponse:
    """A filter holds more of the response than it should: read no more of it."""


@dataclass(slots=True)
class ResumeResponse:
    """Read on."""


@dataclass(slots=True)
class PauseBegan:
    """A filter holds the stream up: call `pause_expired` after `seconds`, unless PauseEnded comes before.

    The two alternate: of several filters that hold the stream at once, each gets its time when it is its turn.
    """

    seconds: float


@dataclass(slots=True)
class PauseEnded:
    """That filter holds it no longer."""


@dataclass(slots=True)
class AnswerLocally:
    """The response comes from here: let go of the upstream side. SendResponseHeaders follows, unless a filter holds it."""

    details: str = ""


@dataclass(slots=True)
class Reset:
    """The stream cannot end well: close the client's connection, let go of the upstream side. What follows means nothing."""

    details: str = ""


Command = (
    SendRequestHeaders
    | SendRequestData
    | SendRequestTrailers
    | SendResponseHeaders
    | SendResponseData
    | SendResponseTrailers
    | PauseRequest
    | ResumeRequest
    | PauseResponse
    | ResumeResponse
    | PauseBegan
    | PauseEnded
    | AnswerLocally
    | Reset
)

# Ready made, those of heads by end_stream: nobody changes a command.
SEND_REQUEST_HEADERS: Final = SendRequestHeaders(False), SendRequestHeaders(True)
SEND_RESPONSE_HEADERS: Final = SendResponseHeaders(False), SendResponseHeaders(True)
SEND_REQUEST_END: Final = SendRequestData(b"", True)
SEND_RESPONSE_END: Final = SendResponseData(b"", True)

REQUEST: Final = 0
RESPONSE: Final = 1
