"""The typed config. Every section is frozen; an unknown key is an error; durations are seconds, sizes bytes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from proxy.config import fields
from proxy.config.cluster import Cluster
from proxy.config.fields import Choice, Duration
from proxy.config.filter import Filter
from proxy.config.listener import Listener
from proxy.config.operation import Admin, Log, Overload, Reload, Tracing
from proxy.config.problem import KeyPath, Problem, path_text
from proxy.config.route import Route
from proxy.config.section import Model, optional
from proxy.config.sources import Sources, TrustedKey


class Config(Model):
    """The whole of a Penstock config file."""

    listeners: tuple[Listener, ...] = Field(
        min_length=1, description="Where clients are served.", examples=[[{"address": "127.0.0.1:8080"}]]
    )
    clusters: tuple[Cluster, ...] = Field(
        description="The services behind the gateway.",
        examples=[[{"name": "service", "endpoints": ["127.0.0.1:9000"]}]],
    )
    routes: tuple[Route, ...] = Field(
        description="Which request goes where; the first match wins, none gives 404.",
        examples=[[{"match": {"prefix": "/"}, "cluster": "service"}]],
    )
    filters: tuple[Filter, ...] = optional(
        [],
        "The chain: requests pass it top to bottom, responses bottom to top.",
        [{"name": "basic-auth", "wasm": "filters/basic-auth.wasm"}],
    )
    filters_directory: fields.FiltersDirectory | None = optional(
        None, "Every NAME.wasm in it joins the chain, in name order; NAME.yaml gives its settings.", "filters.d"
    )
    sources: Sources = optional({}, "How filters are fetched whose wasm is no path.", {"refresh": "5m"})
    trusted_keys: tuple[TrustedKey, ...] = optional(
        [], "Whose signatures count.", [{"name": "acme", "key": "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}]
    )
    require_signature: fields.Switch = optional(False, "Refuse filters without a signature by one of trusted_keys.", True)
    admin: Admin | None = optional({}, "The operator's own port; null for none.", {"address": "127.0.0.1:9901"})
    workers: fields.Workers = optional(1, "Processes that serve; auto: one per CPU.", 4, "auto")
    overload: Overload = optional({}, "What a worker takes on at most.", {"memory": "1GiB"})
    state_directory: fields.NewDirectory | None = optional(
        None,
        "Where what the operator decides at run time outlives a restart (canaries); without it $PENSTOCK_STATE, or penstock in "
        "$XDG_STATE_HOME or ~/.local/state.",
        "/var/lib/penstock",
    )
    shutdown_grace: Duration = optional("10s", "How long running streams may take after SIGTERM.")
    event_loop: Annotated[Literal["auto", "uvloop", "asyncio"], Choice()] = optional(
        "auto", "The event loop; auto: uvloop where it is installed."
    )
    reload: Reload = optional({}, "When the gateway takes a changed config.", {"watch": False})
    log: Log = optional({}, "What is logged, and how.", {"level": "info"})
    tracing: Tracing | None = optional(None, "Send traces.", {"endpoint": "http://127.0.0.1:4318/v1/traces"})

    _positions: dict[KeyPath, tuple[str, int]] = PrivateAttr(default_factory=dict)
    _file: Path | None = PrivateAttr(default=None)

    def completed(
        self, filters: tuple[Filter, ...], positions: Mapping[KeyPath, tuple[str, int]], file: Path | None = None
    ) -> "Config":
        """The same config with the filters of the filters directory, knowing where each value is written."""
        config = self.model_copy(update={"filters": self.filters + filters})
        config._positions = dict(positions)
        config._file = file
        return config

    @property
    def file(self) -> Path | None:
        """The config file; None for a config that was made otherwise."""
        return self._file

    def worker_count(self) -> int:
        """The number of workers; `auto` is one for each CPU that this process may use."""
        return self.workers if isinstance(self.workers, int) else len(os.sched_getaffinity(0))

    def problem(self, path: KeyPath, problem: str, mend: str) -> Problem:
        """A problem found after loading, such as a filter that does not compile, at its place in the config files.

        `path` counts filters as `self.filters` does: `("filters", 2, "wasm")`.
        """
        place = path
        while place and place not in self._positions:
            place = place[:-1]
        file, line = self._positions.get(place, ("config", 1))
        return Problem(file, line, path_text(path), problem, mend)
