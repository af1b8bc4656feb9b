"""Many chains in one Envoy: a listener for each, so that hundreds of cases share a start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.envoy import TYPE, AccessLine, Envoy, EnvoyFilter, socket_address

TRAILERS = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
        }
    }
}
"""Cluster options with which Envoy sends trailers on and takes them in."""

FIELDS = {"status": "%RESPONSE_CODE%", "details": "%RESPONSE_CODE_DETAILS%", "flags": "%RESPONSE_FLAGS%",
          "upstream": "%UPSTREAM_CLUSTER%", "sent": "%BYTES_SENT%"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lane:
    """One listener with its chain. `limit`: bytes of a body that may be held."""

    name: str
    filters: Sequence[EnvoyFilter]
    clusters: Mapping[str, int]
    routes: Sequence[tuple[str, str]]
    limit: int | None = None
    trailers: bool = False
    timeout: float = 15.0


@dataclass(slots=True)
class EnvoyFleet(Envoy):
    """An Envoy with a listener for each lane. What it adds to heads by itself is off where it has a switch for it."""

    lanes: Sequence[Lane] = ()
    ports: dict[str, int] = field(default_factory=dict)

    def is_live(self, address: Path) -> bool:
        """As Envoy's; learns every lane's port."""
        if not super(EnvoyFleet, self).is_live(address):
            return False
        listeners = json.loads(self.admin("/listeners?format=json"))["listener_statuses"]
        self.ports = {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in listeners}
        return len(self.ports) == len(self.lanes)

    def bootstrap(self, directory: Path) -> dict[str, Any]:
        clusters = []
        for lane in self.lanes:
            for name, port in lane.clusters.items():
                cluster = self.cluster(name, port)
                if lane.limit is not None:
                    cluster["per_connection_buffer_limit_bytes"] = lane.limit
                if lane.trailers:
                    cluster.update(TRAILERS)
                clusters.append(cluster)
        return {
            "admin": {"address": socket_address(0)},
            "static_resources": {
                "listeners": [self.listener(lane, directory) for lane in self.lanes],
                "clusters": clusters,
            },
        }

    def listener(self, lane: Lane, directory: Path) -> dict[str, Any]:
        routes = [
            {
                "name": f"to-{name}",
                "match": {"prefix": prefix},
                "route": {"cluster": name, "timeout": f"{lane.timeout}s"},
            }
            for prefix, name in lane.routes
        ]
        manager: dict[str, Any] = {
            "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": lane.name,
            "generate_request_id": False,
            "normalize_path": True,  # Penstock always does
            "delayed_close_timeout": "0s",  # a connection that is cut is cut at once
            "server_header_transformation": "PASS_THROUGH",
            "http_protocol_options": {"enable_trailers": lane.trailers},
            "route_config": {
                "name": "routes",
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
            },
            "http_filters": [
                *(one.http_filter(index) for index, one in enumerate(lane.filters)),
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": TYPE + "envoy.extensions.filters.http.router.v3.Router",
                        "suppress_envoy_headers": True,
                    },
                },
            ],
            "access_log": [
                {
                    "name": "envoy.access_loggers.file",
                    "typed_config": {
                        "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                        "path": str(directory / f"access-{lane.name}"),
                        "log_format": {"json_format": FIELDS},
                    },
                }
            ],
        }
        listener: dict[str, Any] = {
            "name": lane.name,
            "address": socket_address(0),
            "filter_chains": [
                {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
            ],
        }
        if lane.limit is not None:
            listener["per_connection_buffer_limit_bytes"] = lane.limit
        return listener

    def accesses(self, lane: str) -> list[AccessLine]:
        """The access log of one lane so far."""
        assert self.directory is not None, "not started"
        path = self.directory / f"access-{lane}"
        found = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
        return [
            AccessLine(int(one["status"]), one["details"] or "", one["flags"] or "", one["upstream"] or "", int(one["sent"]))
            for one in found
        ]
