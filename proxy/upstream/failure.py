"""How an upstream attempt can fail, and what Envoy makes of each (status, response flag, reset reason)."""

from enum import Enum


class Failure(Enum):
    """The value: (status before the response has begun, Envoy's response flag, Envoy's reset reason, the metric's word)."""

    CONNECT = (503, "UF", "remote_connection_failure", "connect_failed")
    CONNECT_TIMEOUT = (503, "UF", "connection_timeout", "connect_timeout")
    OVERFLOW = (503, "UO", "overflow", "overflow")
    TERMINATED = (503, "UC", "connection_termination", "reset")
    PROTOCOL = (502, "UPE", "protocol_error", "protocol_error")

    def __init__(self, status: int, flag: str, reason: str, metric: str) -> None:
        self.status = status
        self.flag = flag
        self.reason = reason
        self.metric = metric
        self.details_before = f"upstream_reset_before_response_started{{{reason}}}"
        self.details_after = f"upstream_reset_after_response_started{{{reason}}}"
        words = reason.replace("_", " ")
        self.body = f"upstream connect error or disconnect/reset before headers. reset reason: {words}".encode()
