"""What the parts that filters take in streams have in common, whatever their ABI."""

from proxy.abi.filter import StreamHost
from proxy.abi.reporting import Reporting


class StreamPart:
    """The limits of a filter's part in a stream, and its failures to keep them. Parts have `plugin` and `stream` in slots."""

    __slots__ = ()

    plugin: Reporting
    stream: StreamHost

    @property
    def stops_iteration_on_headers(self) -> bool:
        return self.plugin.settings.stops_iteration_on_headers

    @property
    def body_limit(self) -> int:
        return self.plugin.settings.body_buffer

    @property
    def pause_seconds(self) -> float:
        return self.plugin.settings.pause

    @property
    def fails_open(self) -> bool:
        return self.plugin.settings.fail_open

    def overdue(self) -> None:
        self.plugin.failed("pause", "pause", f"held a stream for {self.pause_seconds:g} s", self.stream, 0)

    def overflowed(self, direction: int) -> None:
        what, limit = ("request", "response")[direction], self.body_limit
        self.plugin.failed(
            "pause", "body_buffer", f"held more of a {what} body than limits.body_buffer, {limit} bytes", self.stream, 0
        )
