"""All written cases, and the waivers: which cases differ on purpose, and why. docs/conformance.md shows the same list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.conformance.case import Case
from tests.conformance.cases import bodies, heads, pauses, replies, roots, shared, trailers, versions


@dataclass(frozen=True, slots=True)
class Waiver:
    """`cases`: names of the cases it holds for; one that ends in `*` stands for all that begin so."""

    name: str
    envoy: str
    penstock: str
    why: str
    cases: Sequence[str]

    def holds_for(self, case: Case) -> bool:
        return any(case.name.startswith(one[:-1]) if one.endswith("*") else case.name == one for one in self.cases)


WAIVERS = (
    Waiver("framing", "Forwards a content-length that the body does not have: the peer hangs, or takes a part for the whole; sends a length with 204.",
           "A body that is not as long as its head says ends the stream with an error, so the last byte of a length waits for the stream's end; no length with 204.", "Request smuggling and truncated answers.",
           ("request body: sized, replaced by more", "request body: sized, replaced by less", "response body: sized, replaced by more", "response body: sized, replaced by less",
            "request edit: content-length of a POST replaced*", "request edit: add content-length to GET", "request edit: add transfer-encoding", "request edit: add connection", "request edit: add upgrade",
            "response edit: content-length*", "response edit: status 204", "response edit: status 304", "reply: status 204", "reply: status 304", "reply: A edits B's body, the length stays",
            "pause body: response held at its end", "trailers: sized by a filter", "call: transfer-encoding")),
    Waiver("unsendable-head", "Sends some heads that are malformed (`a b` as a path or method, no host), answers others with text that quotes the filter's field.",
           "Refuses every head that is no well-formed HTTP/1.1: 503 to the client (500 for a response), the reason in the log.", "RFC 9110 5.5, 5.6.2, 7.1; what a filter wrote is not the client's business.",
           ("request edit: remove :path", "request edit: path*", "request edit: remove :method", "request edit: remove :authority", "request edit: value with*", "request edit: name with*",
            "request edit: empty name", "request edit: method with a space", "request edit: method CONNECT", "request edit: authority with a space", "request edit: set empty", "request edit: set without scheme", "request edit: malformed set", "request edit: add to what is there",
            "response edit: value with*", "response edit: name with*", "response edit: empty name", "response edit: add *", "routes: to no route", "edge 7*",
            "request edit: set all with a host beside :authority", "reply: header names and values that cannot be sent", "reply: pseudo-headers among its fields", "call: fields that cannot be sent")),
    Waiver("status", "Sends any number as a status, truncated to 16 bits.", "200 to 599; else 500 (local replies), or the response is refused.", "RFC 9110 15; broken status lines.",
           ("response edit: remove :status", "response edit: status *", "response edit: set *", "response edit: malformed set", "response edit: add to :status", "reply: status *", "edge 9*")),
    Waiver("continue-in-pause", "A callback that continues and pauses at once leaves the stream hanging, or sends the request twice.", "It goes on.", "A hang helps nobody.",
           ("pause: continue in the callback that pauses", "pause default: rqh, continued in*", "pause allowed: rqh, continued in*")),
    Waiver("shared-buffer", "Two filters that hold the same body, or one that holds its head behind one that holds the body, share one buffer: one sees what the other holds.", "Each holds its own.", "Each filter sees every byte once.",
           ("request body: A and B hold", "response head held by A, body by B")),
    Waiver("last-byte", "All of a sized body goes out at once: who holds its end holds nothing up.", "The last byte waits for the end of the stream.",
           "A filter may still add to the body, or answer: then no peer may have taken it for whole.", ("pause body: sized request held at its end", "pause body: response held at its end")),
    Waiver("lost-end", "What a filter writes into the empty end of a body that it held, after a tick or a call's answer has continued it, is lost.", "It is sent.", "The filter was told that it was written.",
           ("pause body: end of a request edited after a tick went on",)),
    Waiver("body-after-reply", "A filter that answered from a body callback still reads that piece in its later callbacks, or memory that is freed by then.",
           "It reads nothing: the request is over.", "What is read depends on when it is freed.", ("reply: rqb of A, the request's body read afterwards",)),
    Waiver("queue-of-many", "on_queue_ready and on_tick never come in a VM that several filters of a chain share.", "They come to the filter that registered, or set the period.", "The ABI says so.", ("queue: two filters of one VM", "ticks: two filters of one VM")),
    Waiver("replaced-head", "In the on_log of a filter that answered in a response's place, the properties of its fields show the response that was replaced; its map, response.code and what other filters see show the one that was sent.",
           "All of them show the one that was sent.", "What was replaced is gone, as in the map.", ("properties of a response that the filter replaced",)),
    Waiver("request-read", "Closes the connection after a reply from a body callback, even where the whole request has arrived.", "Keeps it then.", "Nothing is left unread.", ("reply: rqb of a sized request that is there",)),
    Waiver("te", "Sends `te: trailers` on, whether or not trailers are taken, without naming it in Connection.", "Drops it, unless the listener and the cluster have `trailers: true`; then it sends `connection: te` with it.",
           "RFC 9110 10.1.4; nobody is promised what is dropped.", ("heads: te: trailers", "trailers: te and trailer fields", "trailers: te in a list")),
    Waiver("trailer-fields", "Passes any field as a trailer, host, content-length and set-cookie among them; `a CRLF b: c` that a filter wrote becomes two.",
           "Drops fields that frame, route, authenticate, control caches or describe content; refuses what cannot be sent, as in heads.", "RFC 9110 6.5.1; request smuggling.",
           ("trailers: that *", "trailers: of a response that trailers may not be", "trailers: host")),
    Waiver("trailers-overtake", "Trailers that a filter begins in the callback in which it pauses pass it by, and those that one filter holds go on when a filter behind it continues its own pause: past both, with the end.",
           "They wait with what the filter holds.", "A pause that does not hold is none; what is held would be lost.", ("trailers: begun by a filter that pauses", "trailers: held by one filter*")),
    Waiver("trailer-syntax", "Takes obs-fold, bare LF, content-length and transfer-encoding in a trailer section; says 400 and 431 in other words.",
           "400, or 502 for a response's (cut, if its head is out); too large or too many: 431.", "What two parsers may read in two ways is not forwarded.",
           ("trailers: content-length*", "trailers: transfer-encoding", "trailers: obs-fold*", "trailers: bare LF", "trailers: NUL", "trailers: a name with a space", "trailers: too large", "trailers: too many")),
    Waiver("interim", "Drops 103.", "Passes it on.", "RFC 8297.", ("heads: 103 before 200",)),
    Waiver("absolute-form", "Pseudo-headers of an absolute-form request: :scheme before :path and :method.", "One order for all requests.", "Order of pseudo-headers has no meaning, and one order is one thing less for filters to depend on.", ("heads: absolute-form",)),
    Waiver("forwarded-proto", "A request without x-forwarded-proto has no route: 404.", "Routes do not depend on it.", "A filter may take the field away.", ("request edit: remove x-forwarded-proto", "request edit: remove :scheme", "request edit: scheme https")),
    Waiver("method-to-head", "A GET made HEAD by a filter: the client waits for a body.", "Ends the stream with an error.", "A hang helps nobody.", ("request edit: method HEAD", "request edit: method in lower case")),
    Waiver("date-in-log", "on_log sees the response as it was sent, with date.", "As filters left it.", "The date is put in as the head is written, on its way to the client; no map holds it.", ("heads: the response in on_log", "window: maps in log")),
    Waiver("log-status", "The access log shows the upstream's status though the client got no head.", "0: the client got none.", "The log says what the client saw.",
           ("pause default: rsh*", "pause allowed: rsh*", "pause body: over the limit while the head waits*", "close_stream(response) in rsh", "trap: after a local reply", "end: upstream refuses")),
    Waiver("no-route", "A 404 for want of a route has no body.", "It has `no route matched`.", "The answer says what is wrong.", ("routes: no route", "routes: no route, POST")),
    Waiver("fragment", "Answers 400 for a fragment from within the stream.", "The parser refuses it: no stream.", "RFC 9112 3.2.1.", ("fragment in the path",)),
    Waiver("repeated-field", "Joins a request's second user-agent, content-type, content-location, content-range, etag, max-forwards or server with a comma.", "400.", "RFC 9110 5.3: they are no lists; two parsers may read them in two ways.", ("heads: a second user-agent",)),
    Waiver("upgrade", "Hides an upgrade that is not configured.", "Shows it to filters and passes it on.", "Upgrades are tunnelled.", ("upgrade is not offered",)),
    Waiver("host-in-response", "Sends a response's `host` field.", "Does not.", "RFC 9110 7.2: host is a request field.", ("response edit: host is no authority here",)),
    Waiver("call-fields", "The answer to a call has x-envoy-upstream-service-time.", "It has what the service sent.", "Envoy's own field.", ("call: answered",)),
    Waiver("log-bytes", "Writes control characters and bytes that are no UTF-8 as they are.", "Escapes them.", "Log injection.", ("logging: bytes",)),
    Waiver("fail-open", "The stream that met the fault gets 503 all the same.", "It goes on without the filter.", "docs/decisions.md.", ("trap: fails open",)),
)  # fmt: skip

EVERY = [*heads.CASES, *bodies.CASES, *pauses.CASES, *replies.CASES, *roots.CASES, *trailers.CASES, *shared.CASES]


def waived(case: Case) -> Case:
    names = [one.name for one in WAIVERS if one.holds_for(case)]
    return replace(case, waiver=names[0] if names else "")


CASES = [waived(case) for case in EVERY]
CASES += [waived(case) for case in versions.for_older(CASES)]
