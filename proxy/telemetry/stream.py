"""What is known of one stream: filled in by the server and the chain, read by the access log, metrics and filters."""

import time


class StreamInfo:
    """One request and its response. Seconds, bytes; strings are as received, so they may hold any byte (surrogates)."""

    __slots__ = (
        "answered_by",
        "attempts",
        "authority",
        "bytes_received",
        "bytes_sent",
        "cluster_name",
        "connection_id",
        "destination_address",
        "details",
        "entered_status",
        "filter_seconds",
        "flags",
        "method",
        "over",
        "path",
        "protocol",
        "request_id",
        "route_name",
        "scheme",
        "source_address",
        "start",
        "start_monotonic",
        "status",
        "upstream_address",
        "upstream_seconds",
    )

    def __init__(self) -> None:
        self.request_id = ""
        self.method = ""
        self.path = ""
        self.authority = ""
        self.protocol = ""
        self.scheme = ""
        self.source_address = ""
        """"ip:port" of the client's end."""
        self.destination_address = ""
        """"ip:port" of the listener's end."""
        self.start = time.time()
        self.start_monotonic = time.monotonic()
        self.route_name = ""
        self.cluster_name = ""
        self.upstream_address = ""
        """The endpoint of the last attempt."""
        self.status = 0
        """0: the client got no status."""
        self.entered_status = 0
        """The status with which the response entered the chain, while its head is in there; of a head that filters may
        still edit when it has gone on, the one it left with; else 0."""
        self.details = ""
        """Envoy's response code details: via_upstream, route_not_found, upstream_response_timeout ..."""
        self.answered_by = ""
        """The filter that answered, failed, or held too much; "" if none did."""
        self.flags = ""
        """Envoy's response flags: UF, UC, UT, NR, DC ..., comma-separated; "" if none."""
        self.bytes_received = 0
        self.bytes_sent = 0
        self.upstream_seconds = 0.0
        self.filter_seconds = 0.0
        self.attempts = 0
        self.connection_id = 0
        """Of the client's connection; unique in its worker."""
        self.over = False
        """The stream has ended, well or not."""
