"""The access log: one line per stream.

The JSON line is put together here rather than by structlog's processors, which would cost several times as much per
request; fields, order, escaping and level rule are the same. On a console the line does go through structlog.
"""

import logging
import time
from json.encoder import encode_basestring_ascii as quoted

from proxy.telemetry import logging as logs
from proxy.telemetry.stream import StreamInfo

MAX_TEXT = 1024
"""Characters of a path, an authority or another free text in a line: a client may send 8 KiB of them."""


def cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."


class AccessLog:
    """Writes access lines, at level info."""

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.second = -1
        self.second_text = ""

    def write(self, info: StreamInfo, duration: float) -> None:
        """One line for a finished stream that took `duration` seconds.

        Times in milliseconds: `duration_ms` first byte to last, `upstream_ms` on the upstream side, `filters_ms` inside
        filters. `status` 0: the client got none. `details` and `flags` as Envoy names them.
        """
        if not self.enabled or logs.output.level > logging.INFO:
            return
        if not logs.output.json:
            self.write_console(info, duration)
            return
        now = time.time()
        second = int(now)
        if second != self.second:
            self.second = second
            self.second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        path = info.path
        authority = info.authority
        logs.output.writer.write(
            f'{{"time":"{self.second_text}.{int((now - second) * 1e6):06d}Z","level":"info","event":"request",'
            f'"logger":"access","request_id":{quoted(info.request_id)},"method":{quoted(cut(info.method))},'
            f'"path":{quoted(path if len(path) <= MAX_TEXT else cut(path))},'
            f'"authority":{quoted(authority if len(authority) <= MAX_TEXT else cut(authority))},'
            f'"protocol":{quoted(info.protocol)},"route":{quoted(info.route_name)},'
            f'"cluster":{quoted(info.cluster_name)},"upstream":{quoted(info.upstream_address)},'
            f'"client":{quoted(info.source_address)},'
            f'"status":{info.status},"details":{quoted(cut(info.details))},"flags":{quoted(info.flags)},'
            f'"bytes_received":{info.bytes_received},"bytes_sent":{info.bytes_sent},'
            f'"duration_ms":{duration * 1e3:.3f},"upstream_ms":{info.upstream_seconds * 1e3:.3f},'
            f'"filters_ms":{info.filter_seconds * 1e3:.3f}'
            + (f',"filter":{quoted(info.answered_by)}}}' if info.answered_by else "}")
        )

    def write_console(self, info: StreamInfo, duration: float) -> None:
        logs.get_logger("access").info(
            "request",
            request_id=info.request_id,
            method=cut(info.method),
            path=cut(info.path),
            authority=cut(info.authority),
            protocol=info.protocol,
            route=info.route_name,
            cluster=info.cluster_name,
            upstream=info.upstream_address,
            client=info.source_address,
            status=info.status,
            details=cut(info.details),
            flags=info.flags,
            bytes_received=info.bytes_received,
            bytes_sent=info.bytes_sent,
            duration_ms=round(duration * 1e3, 3),
            upstream_ms=round(info.upstream_seconds * 1e3, 3),
            filters_ms=round(info.filter_seconds * 1e3, 3),
            **({"filter": info.answered_by} if info.answered_by else {}),
        )
