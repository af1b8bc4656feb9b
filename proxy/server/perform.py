"""What an exchange does for each command of its chain: heads and body pieces become bytes, in either direction.

A body that does not have the length of its head (a filter changed the one and not the other) never leaves as if it had: where
the length is reached before the stream's end, the last byte waits for that end.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxy.abi.memory import (
    CLOSE,
    END_STREAM,
    FRAMING_CHUNKED,
    FRAMING_LENGTH,
    FRAMING_NONE,
    HEAD_REQUEST,
    HTTP_10,
    PASS_TRAILERS,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    UPGRADE,
    HeadError,
)
from proxy.chain import commands
from proxy.http1.trailers import section
from proxy.server.stream_state import BY_CHAIN
from proxy.upstream.failure import Failure

if TYPE_CHECKING:
    from proxy.server.exchange import Exchange

OVERFLOW = Failure.OVERFLOW.flag
WRITES_HEAD = "a filter that writes what `reason` says; penstock explain shows what each of them writes"
WRITES_TRAILERS = "a filter that adds or changes a trailer: its name has to be a token, its value without line ends"
CHANGES_LENGTH = "a filter that changes the body: it has to remove content-length in its headers callback"


def blame(exchange: "Exchange", event: str, look_for: str, **facts: str) -> None:
    """Log a filter's mistake. Whose it was nobody keeps: all that the stream passed are named, and what to look for in them."""
    chain = exchange.chain
    exchange.complain(event, **facts, filters=chain.names() if chain is not None else [], look_for=look_for)


def send_request_headers(exchange: "Exchange", command: commands.SendRequestHeaders) -> None:
    """Choose an endpoint and send the head."""
    if exchange.answered:
        return
    memory, region = exchange.memory, exchange.region
    assert region is not None
    if memory.live is not region:
        memory.attach(region)
    # Sent as it left the chain; what filters have edited since is for later callbacks, on_log at the last (Envoy).
    late = command.pairs and memory.pairs(REQUEST_HEADERS)
    if command.pairs is not None:
        memory.set_pairs(REQUEST_HEADERS, command.pairs)
    if not exchange.generation.one_route and memory.edited(REQUEST_HEADERS):
        exchange.choose_route_again()
    route = exchange.route
    if route is None:
        exchange.answer(404, b"no route matched", "route_not_found", "NR")
        return
    flags = END_STREAM | UPGRADE if exchange.upgrade else END_STREAM if command.end_stream else 0
    try:
        data, framing, length, _, _ = memory.emit_request(flags | PASS_TRAILERS if route.cluster.trailers else flags)
    except HeadError as error:
        blame(exchange, "filter wrote a request that cannot be sent", WRITES_HEAD, reason=error.reason)
        exchange.answer(503, b"invalid request", "filter_wrote_invalid_request", "")
        return
    if late:
        memory.set_pairs(REQUEST_HEADERS, late)
    if exchange.upgrade:
        data = with_upgrade(data)
    exchange.request_head = data
    exchange.upwards.append(data)
    if flags:
        exchange.on_request_sent(route)
    else:
        exchange.request_left = length
        exchange.request_chunked = framing == FRAMING_CHUNKED
        if exchange.expects_continue:
            exchange.invite_body()
    exchange.open_upstream(route)


def send_request_data(exchange: "Exchange", command: commands.SendRequestData) -> None:
    """Frame and pass on a piece of the body."""
    route = exchange.route
    if exchange.answered or route is None or exchange.request_sent:
        return
    data, out = command.data, exchange.upwards
    if data:
        exchange.body_sent = True
        if exchange.request_chunked:
            out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            left = exchange.request_left = exchange.request_left - len(data)
            if not left and not command.end_stream:
                data, exchange.request_kept = data[:-1], data[-1:]
            out.append(data)
    if command.end_stream and exchange.request_chunked:
        out.append(b"0\r\n\r\n")
    elif not exchange.request_chunked and (exchange.request_left < 0 or (command.end_stream and exchange.request_left)):
        out.clear()
        blame(exchange, "request body does not have the length of its head", CHANGES_LENGTH)
        exchange.answer(500, b"request length mismatch", "request_length_mismatch", "")
        return
    elif command.end_stream and exchange.request_kept:
        out.append(exchange.request_kept)
    if command.end_stream:
        exchange.body_sent = True
        exchange.on_request_sent(route)


def send_request_trailers(exchange: "Exchange", command: commands.SendRequestTrailers) -> None:
    """End the body: with trailers, where they can be sent and the cluster takes them."""
    route, pairs = exchange.route, command.pairs
    if route is None or not pairs or not exchange.request_chunked or not route.cluster.trailers:
        send_request_data(exchange, commands.SendRequestData(b"", True))
        return
    if exchange.answered or exchange.request_sent:
        return
    end = section(pairs)
    if end is None:
        blame(exchange, "filter wrote trailers that cannot be sent", WRITES_TRAILERS)
        exchange.answer(503, b"invalid request", "filter_wrote_invalid_request", "")
        return
    exchange.upwards.append(end)
    exchange.body_sent = True
    exchange.on_request_sent(route)


def send_response_headers(exchange: "Exchange", command: commands.SendResponseHeaders) -> None:
    """Send the head; from here on the status is out."""
    if exchange.response_started:
        return
    exchange.response_started = True
    request = exchange.request
    flags = END_STREAM if command.end_stream else 0
    if request.method == "HEAD":
        flags |= HEAD_REQUEST
    if not request.version[1]:
        flags |= HTTP_10
    # What the client still sends of the request has no reader after the response: the connection cannot go on.
    listener = exchange.downstream.listener
    if not exchange.request_ended or request.should_close or request.upgrade or listener.draining:
        flags |= CLOSE
    elif exchange.info.flags == OVERFLOW:
        flags |= CLOSE  # it is too much here: this client had better ask another gateway
    if listener.trailers:
        flags |= PASS_TRAILERS
    if exchange.upgrade and exchange.upstream is not None:
        flags |= UPGRADE
    memory, region = exchange.memory, exchange.region
    assert region is not None
    if memory.live is not region:
        memory.attach(region)
    late = command.pairs and memory.pairs(RESPONSE_HEADERS)
    if command.pairs is not None:
        memory.set_pairs(RESPONSE_HEADERS, command.pairs)
    try:
        data, framing, length, status, close = memory.emit_response(flags)
    except HeadError as error:
        blame(exchange, "filter wrote a response that cannot be sent", WRITES_HEAD, reason=error.reason)
        exchange.refuse(500, "filter_wrote_invalid_response", error.reason)
        return
    if late:
        memory.set_pairs(RESPONSE_HEADERS, late)
    exchange.info.status = status
    exchange.response_framing = framing
    exchange.response_left = length
    exchange.keep_alive = not close
    if status == 101:
        data = with_upgrade(data)
        exchange.switching = True
    elif command.end_stream:
        exchange.response_ended = True
    exchange.downwards.append(data)


def send_response_data(exchange: "Exchange", command: commands.SendResponseData) -> None:
    """Frame and pass on a piece of the body."""
    if exchange.response_ended or not exchange.response_started:
        return
    data, out = command.data, exchange.downwards
    size = len(data)
    framing = exchange.response_framing
    if framing == FRAMING_CHUNKED:
        if data:
            out += (b"%x\r\n" % size, data, b"\r\n")
        if command.end_stream:
            out.append(b"0\r\n\r\n")
    elif framing != FRAMING_NONE:
        if framing == FRAMING_LENGTH:
            left = exchange.response_left = exchange.response_left - size
            if left < 0 or (command.end_stream and left):
                blame(exchange, "response body does not have the length of its head", CHANGES_LENGTH)
                exchange.flush_down()
                exchange.reset("response_length_mismatch", "")
                return
            if command.end_stream:
                data += exchange.response_kept
            elif not left and data:
                # Kept whole, to be cut only if the end does not come with it (`keep_last_byte`).
                data, exchange.response_kept = b"", data
        if data:
            out.append(data)
    exchange.info.bytes_sent += size
    if command.end_stream:
        exchange.response_ended = True


def send_response_trailers(exchange: "Exchange", command: commands.SendResponseTrailers) -> None:
    """End the body: with trailers, where they can be sent and the listener passes them on."""
    pairs = command.pairs
    if not pairs or exchange.response_framing != FRAMING_CHUNKED or not exchange.downstream.listener.trailers:
        send_response_data(exchange, commands.SendResponseData(b"", True))
        return
    if exchange.response_ended or not exchange.response_started:
        return
    end = section(pairs)
    if end is None:
        blame(exchange, "filter wrote trailers that cannot be sent", WRITES_TRAILERS)
        exchange.flush_down()
        exchange.reset("filter_wrote_invalid_response", "")
        return
    exchange.downwards.append(end)
    exchange.response_ended = True


def pause_request(exchange: "Exchange", command: commands.PauseRequest) -> None:
    exchange.hold_request(BY_CHAIN)


def resume_request(exchange: "Exchange", command: commands.ResumeRequest) -> None:
    exchange.free_request(BY_CHAIN)


def pause_response(exchange: "Exchange", command: commands.PauseResponse) -> None:
    exchange.hold_response(BY_CHAIN)


def resume_response(exchange: "Exchange", command: commands.ResumeResponse) -> None:
    exchange.free_response(BY_CHAIN)


def pause_began(exchange: "Exchange", command: commands.PauseBegan) -> None:
    """A filter holds the stream up: it has so long."""
    exchange.pausing = exchange.generation.pause_deadlines(command.seconds)
    exchange.pausing.start(exchange)


def pause_ended(exchange: "Exchange", command: commands.PauseEnded) -> None:
    """It holds it no longer."""
    if exchange.pausing is not None:
        exchange.pausing.stop(exchange)
        exchange.pausing = None


def answer_locally(exchange: "Exchange", command: commands.AnswerLocally) -> None:
    """The response comes from the chain: the upstream has no more say."""
    exchange.answered = True
    exchange.info.details = command.details or exchange.info.details
    exchange.drop_upstream()


def reset_downstream(exchange: "Exchange", command: commands.Reset) -> None:
    """The chain cannot finish what it began."""
    exchange.flush_down()
    exchange.reset(command.details or exchange.info.details or "filter_reset", exchange.info.flags)


def with_upgrade(head: bytes) -> bytes:
    """The Upgrade field belongs to the hop (RFC 9110 7.8): whatever happened to it in the chain, it goes out."""
    if b"\r\nupgrade: " in head:
        return head
    return head[:-2] + b"upgrade: websocket\r\n\r\n"


ACTIONS: dict[type, Callable[["Exchange", Any], None]] = {
    commands.SendRequestHeaders: send_request_headers,
    commands.SendRequestData: send_request_data,
    commands.SendRequestTrailers: send_request_trailers,
    commands.SendResponseHeaders: send_response_headers,
    commands.SendResponseData: send_response_data,
    commands.SendResponseTrailers: send_response_trailers,
    commands.PauseRequest: pause_request,
    commands.ResumeRequest: resume_request,
    commands.PauseResponse: pause_response,
    commands.ResumeResponse: resume_response,
    commands.PauseBegan: pause_began,
    commands.PauseEnded: pause_ended,
    commands.AnswerLocally: answer_locally,
    commands.Reset: reset_downstream,
}
