"""Every metric that Penstock has, declared once, and bundles of children bound at load time for the hot path.

Label values come from the config (routes, clusters, filters) or from short lists, so their number is bounded; what a
filter or a client may choose freely (status codes, guest metric names) is capped.
"""

from collections.abc import Mapping

from proxy.telemetry.metrics import Counter, Family, Gauge, Histogram, Registry, sanitised_name
from proxy.telemetry.stream import StreamInfo

DURATION_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FILTER_BOUNDS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.1, 1.0)
GUEST_BOUNDS = (0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6)
"""Envoy's default histogram buckets: a guest records whole numbers, most often milliseconds or bytes."""

FUEL_BITS = range(8, 33)
FUEL_BOUNDS = tuple(float(2**bits - 1) for bits in FUEL_BITS)
"""Powers of two, so that a call's bucket is its fuel's bit length."""

TIME_BITS = range(10, 34)
TIME_BOUNDS = tuple(2**bits / 1e9 for bits in TIME_BITS)
"""1 us to 8.6 s: a call's bucket is the bit length of its nanoseconds."""

NO_LABELS: Mapping[str, str] = {}

MAX_CODES = 64
"""Status codes counted apart per route; a filter may make up any number from 100 to 999."""


class StreamInstruments:
    """The children of one route and cluster: what one finished stream adds to."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "cluster",
        "codes",
        "duration",
        "filters_duration",
        "own_duration",
        "requests",
        "route",
        "upstream_duration",
    )

    def __init__(self, instruments: "Instruments", route: str, cluster: str) -> None:
        self.route = route
        self.cluster = cluster
        self.requests = instruments.requests
        self.codes: dict[int, Counter] = {}
        self.duration: Histogram = instruments.request_duration.child((route, cluster))
        self.upstream_duration: Histogram = instruments.upstream_duration.child((cluster,))
        self.filters_duration: Histogram = instruments.filters_duration.child((route,))
        self.own_duration: Histogram = instruments.own_duration.child((route,))
        self.bytes_received: Counter = instruments.bytes_received.child((route, cluster))
        self.bytes_sent: Counter = instruments.bytes_sent.child((route, cluster))

    def code(self, status: int) -> Counter:
        """The counter of responses with this status; 0 (the client got none) is a code too."""
        counter = self.codes.get(status)
        if counter is None:
            label = str(status) if len(self.codes) < MAX_CODES else "other"
            counter = self.codes[status] = self.requests.child((self.route, self.cluster, label))
        return counter

    def record(self, info: StreamInfo, duration: float) -> None:
        """Count a finished stream that took `duration` seconds."""
        counter = self.codes.get(info.status)
        if counter is None:
            counter = self.code(info.status)
        counter.value += 1
        self.duration.observe(duration)
        own = duration
        if info.upstream_seconds:
            own -= info.upstream_seconds
            self.upstream_duration.observe(info.upstream_seconds)
        if info.filter_seconds:
            own -= info.filter_seconds
            self.filters_duration.observe(info.filter_seconds)
        self.own_duration.observe(own if own > 0 else 0.0)
        self.bytes_received.value += info.bytes_received
        self.bytes_sent.value += info.bytes_sent


class ClusterInstruments:
    """The children of one cluster."""

    __slots__ = ("cluster", "connections", "failure_family", "failures")

    def __init__(self, instruments: "Instruments", cluster: str) -> None:
        self.cluster = cluster
        self.connections: Gauge = instruments.upstream_connections.child((cluster,))
        self.failure_family = instruments.upstream_failures
        self.failures: dict[str, Counter] = {}

    def failed(self, reason: str) -> None:
        """Count a failure; `reason` is a word of a short list (connect_failed, timeout, reset ...), never free text."""
        counter = self.failures.get(reason)
        if counter is None:
            counter = self.failures[reason] = self.failure_family.child((self.cluster, reason))
        counter.value += 1


class FilterInstruments:
    """The children of one filter."""

    __slots__ = (
        "call_fuel", "call_seconds", "failed_fuel_counts", "filter", "fuel", "fuel_counts", "instruments",
        "log_lines_dropped", "memory", "seconds", "time_counts", "vm_rebuilds",
    )  # fmt: skip

    def __init__(self, instruments: "Instruments", name: str) -> None:
        self.instruments = instruments
        self.filter = name
        # By bit length. Here and not in the filter: after a reload the same filter goes on counting.
        self.fuel_counts = [0] * 64
        self.failed_fuel_counts = [0] * 64
        """Of `fuel_counts`, those of callbacks that failed."""
        self.time_counts = [0] * 64
        self.fuel: Counter = instruments.filter_fuel.child((name,))
        self.call_fuel: Histogram = instruments.filter_call_fuel.child((name,))
        self.seconds: Counter = instruments.filter_seconds.child((name,))
        self.call_seconds: Histogram = instruments.filter_call_seconds.child((name,))
        self.memory: Gauge = instruments.filter_memory.child((name,))
        self.vm_rebuilds: Counter = instruments.vm_rebuilds.child((name,))
        self.log_lines_dropped: Counter = instruments.filter_log_lines_dropped.child((name,))

    def calls(self, callback: str) -> Counter:
        """Bind once per callback."""
        return self.instruments.filter_calls.child((self.filter, callback))

    def failures(self, reason: str) -> Counter:
        """`reason`: trap, fuel, deadline, memory ..."""
        return self.instruments.filter_failures.child((self.filter, reason))

    def limited(self, limit: str) -> Counter:
        """`limit`: the setting's name."""
        return self.instruments.filter_limited.child((self.filter, limit))

    def host_call_errors(self, function: str, status: str) -> Counter:
        """`function`: the ABI's name; `status`: the ABI's word for the WasmResult."""
        return self.instruments.host_call_errors.child((self.filter, function, status))

    def guest_counter(self, name: str, labels: Mapping[str, str] = NO_LABELS) -> Counter:
        """Raises ValueError if a filter has defined the name with other labels; so do the next two."""
        family = self.instruments.guest_counter(f"penstock_guest_{sanitised_name(name)}_total", ("filter", *labels))
        return family.child((self.filter, *labels.values()))

    def guest_gauge(self, name: str, labels: Mapping[str, str] = NO_LABELS) -> Gauge:
        family = self.instruments.guest_gauge(f"penstock_guest_{sanitised_name(name)}", ("filter", *labels))
        return family.child((self.filter, *labels.values()))

    def guest_histogram(self, name: str, labels: Mapping[str, str] = NO_LABELS) -> Histogram:
        family = self.instruments.guest_histogram(f"penstock_guest_{sanitised_name(name)}", ("filter", *labels))
        return family.child((self.filter, *labels.values()))


class Instruments:
    """The families, on one registry."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.filters: dict[str, FilterInstruments] = {}
        counter, gauge, histogram = registry.counter, registry.gauge, registry.histogram
        self.requests = counter(
            "penstock_requests_total", "Streams that ended, by response status", ("route", "cluster", "code")
        )
        self.request_duration = histogram(
            "penstock_request_duration_seconds",
            "From the first byte of the request head to the end of the response",
            ("route", "cluster"),
            DURATION_BOUNDS,
        )
        self.own_duration = histogram(
            "penstock_own_duration_seconds",
            "What is left of a stream's time: the gateway's own, and waiting for the client",
            ("route",),
            FILTER_BOUNDS,
        )
        self.upstream_duration = histogram(
            "penstock_upstream_duration_seconds", "Time spent on the upstream side", ("cluster",), DURATION_BOUNDS
        )
        self.filters_duration = histogram(
            "penstock_filters_duration_seconds", "Time spent inside filters per stream", ("route",), FILTER_BOUNDS
        )
        self.bytes_received = counter("penstock_bytes_received_total", "Request bytes from downstream", ("route", "cluster"))
        self.bytes_sent = counter("penstock_bytes_sent_total", "Response bytes to downstream", ("route", "cluster"))
        self.rejected_requests = counter(
            "penstock_rejected_requests_total", "Requests refused before they became streams", ("listener", "reason")
        )
        self.connections = gauge("penstock_connections", "Open downstream connections", ("listener",))
        self.streams = gauge("penstock_streams", "Streams that are running")
        self.resident_bytes = gauge("penstock_worker_memory_bytes", "Memory of the workers in RAM")
        self.tasks = gauge("penstock_tasks", "Tasks of the workers' event loops")
        self.vms = gauge("penstock_vms", "VMs that live")
        self.upstream_connections = gauge("penstock_upstream_connections", "Open upstream connections", ("cluster",))
        self.upstream_failures = counter(
            "penstock_upstream_failures_total", "Upstream attempts that failed", ("cluster", "reason")
        )
        self.filter_calls = counter("penstock_filter_calls_total", "Callbacks entered", ("filter", "callback"))
        self.filter_fuel = counter("penstock_filter_fuel_total", "Fuel used in callbacks", ("filter",))
        self.filter_call_fuel = histogram(
            "penstock_filter_call_fuel", "Fuel of single calls: what `fuel` has to admit", ("filter",), FUEL_BOUNDS
        )
        self.filter_call_seconds = histogram("penstock_filter_call_seconds", "Time of single calls", ("filter",), TIME_BOUNDS)
        self.filter_memory = gauge("penstock_filter_memory_bytes", "Linear memory of the filter's VMs", ("filter",))
        self.filter_limited = counter(
            "penstock_filter_limited_total", "What was cut to a limit that ends nothing", ("filter", "limit")
        )
        self.filter_failures = counter(
            "penstock_filter_failures_total", "Callbacks ended by the gateway or by a trap", ("filter", "reason")
        )
        self.filter_seconds = counter("penstock_filter_seconds_total", "Time spent inside the filter", ("filter",))
        self.vm_rebuilds = counter("penstock_vm_rebuilds_total", "VMs discarded and built again", ("filter",))
        self.filter_log_lines_dropped = counter(
            "penstock_filter_log_lines_dropped_total", "Log lines of a filter above its limit", ("filter",)
        )
        self.host_call_errors = counter(
            "penstock_host_call_errors_total",
            "Host calls that answered with an error status",
            ("filter", "function", "status"),
        )
        self.log_lines_dropped = counter("penstock_log_lines_dropped_total", "Log lines that stderr did not take")

    def stream(self, route: str, cluster: str) -> StreamInstruments:
        return StreamInstruments(self, route, cluster)

    def cluster(self, name: str) -> ClusterInstruments:
        return ClusterInstruments(self, name)

    def filter(self, name: str) -> FilterInstruments:
        """The one of that name: generations of a filter count together."""
        found = self.filters.get(name)
        if found is None:
            found = self.filters[name] = FilterInstruments(self, name)
        return found

    def forget(self, label: str, value: str) -> None:
        """A filter, cluster or route that is no longer configured."""
        if label == "filter":
            self.filters.pop(value, None)
        for family in self.registry.families.values():
            if label in family.label_names:
                family.remove(**{label: value})

    def guest_counter(self, name: str, labels: tuple[str, ...] = ("filter",)) -> Family[Counter]:
        return self.registry.counter(name, GUEST_HELP, labels)

    def guest_gauge(self, name: str, labels: tuple[str, ...] = ("filter",)) -> Family[Gauge]:
        return self.registry.gauge(name, GUEST_HELP, labels)

    def guest_histogram(self, name: str, labels: tuple[str, ...] = ("filter",)) -> Family[Histogram]:
        return self.registry.histogram(name, GUEST_HELP, labels, GUEST_BOUNDS)


GUEST_HELP = "Defined by a filter"


class ProcessInstruments:
    """What the admin process adds to the workers' sums."""

    def __init__(self, registry: Registry) -> None:
        self.worker_restarts = registry.counter("penstock_worker_restarts_total", "Workers started again")
        self.workers = registry.gauge("penstock_workers", "Worker processes by state", ("state",))
        self.reloads = registry.counter("penstock_reloads_total", "Reloads by what came of them", ("result",))
        self.generation = registry.gauge("penstock_config_generation", "The generation that serves: 1, and one more per reload")
        self.quarantined = registry.gauge("penstock_filter_quarantined", "1: taken out until it is resumed", ("filter",))
