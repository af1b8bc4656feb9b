"""The config's filters: what each is, may do and may take."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from proxy.config import fields
from proxy.config.fields import Choice, Count, CountOrNone, Duration, Size
from proxy.config.probe import Probe
from proxy.config.section import Model, optional
from proxy.config.versions import Canary, Shadow


def config_bytes(config: Any) -> bytes:
    """What a filter reads as its configuration: text as it stands, mappings and lists as compact JSON, b"" for none."""
    if config is None:
        return b""
    if isinstance(config, str):
        return config.encode("utf-8")
    return json.dumps(config, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


class FilterLimits(Model):
    """Caps on what a filter may be and hold. The refusal names the setting that admits more."""

    module: Size = optional("32MiB", "Largest .wasm file.")
    functions: Count = optional(100_000, "Most functions in the module.")
    function_body: Size = optional("2MiB", "Largest single function.")
    compile_time: Duration = optional("60s", "Most CPU time for compiling.")
    compile_memory: Size = optional("4GiB", "Most address space for compiling.")
    body_buffer: Size = optional("1MiB", "Most body bytes held while the filter pauses (413 or 500 beyond).")
    start_fuel: fields.Fuel = optional(500_000_000, "Fuel per callback of the start: _initialize, vm_start, configure.")
    start_deadline: Duration = optional("2s", "CPU time for each callback of the start.")
    log_lines: fields.Rate = optional("100/s", "Most log lines; a plain number is per second too.")
    log_line: Size = optional("1KiB", "Longest log line; the rest is cut off.")
    metrics: CountOrNone = optional(1000, "Most metrics.")
    headers: Count = optional(256, "Most headers in one map.")
    header_bytes: Size = optional("64KiB", "Most bytes in one map of headers.")
    pause: Duration = optional("15s", "Longest time that a filter may hold a stream.")
    calls: CountOrNone = optional(8, "Most calls to other services in flight.")
    shared_data: Size = optional("4MiB", "Most bytes of shared data per vm_id.")
    queued_items: CountOrNone = optional(1024, "Most items in shared queues per vm_id.")
    tick: fields.Tick = optional("10ms", "Shortest tick period; a shorter one is raised to it.")
    clock: fields.Clock | None = optional(
        None, "The clock's steps: times are told rounded down to these; as the machine has them without it.", "1ms"
    )


class Quarantine(Model):
    """When a filter that keeps failing is taken out, in all workers, until the operator resumes it."""

    faults: Annotated[int, fields.whole(1, 1000)] = optional(10, "So many faults of its VM in one worker ...")
    window: Duration = optional("5m", "... within so long.")


class Capabilities(Model):
    """What a filter may do beyond its own stream."""

    allowed_hosts: tuple[fields.AllowedHost, ...] = optional(
        [],
        "Where it may call: cluster:NAME or [scheme://]host[:port], with an optional leading *. for subdomains; "
        "a network such as 10.0.0.0/8 admits private addresses.",
        ["cluster:auth", "https://api.example.com"],
    )
    host_functions: tuple[fields.HostFunction, ...] | None = optional(
        None, "The host functions it may call, * standing for any part, of a component kv.get and the like; "
        "without it, the ABI less what needs a grant.",
        ["proxy_log", "proxy_get_*"],
    )  # fmt: skip
    env: dict[fields.VariableName, fields.Text] = optional({}, "Environment variables it sees.", {"MODE": "strict"})
    refused: tuple[fields.Text, ...] = optional(
        [], "What its manifest asks for and it does not get on purpose.", ["https://telemetry.example.com"]
    )


class Filter(Model):
    """One filter of the chain: a proxy-wasm module with its config and budgets."""

    name: fields.Name = Field(description="What routes, logs and metrics call it.", examples=["basic-auth"])
    wasm: fields.WasmSource = Field(
        description="The proxy-wasm module, or component: a path, https://..., or oci://registry/repository:tag[@sha256:...].",
        examples=["filters/basic-auth.wasm", "oci://registry.example.com/filters/basic-auth:1.0.0"],
    )
    sha256: fields.Sha256 | None = optional(None, "The module's SHA-256; another module is refused.", "9f86d081" * 8)
    require_signature: fields.Switch | None = optional(
        None, "Whether it must be signed by one of trusted_keys; as the config's own require_signature without it.", True
    )
    signed_as: fields.Text | None = optional(
        None, "The name that its signature must state; without it the filter's own name, or that of its file.", "basic-auth"
    )
    config: fields.FilterConfig = optional(
        None, "The filter's config. A mapping or list reaches it as JSON text, text as it stands.", {"realm": "staff"}
    )
    root_id: fields.Text = optional("", "The root context's id, for modules with more than one.", "auth")
    vm_id: fields.Text = optional("", "Filters with the same vm_id and module share a VM.", "auth-vm")
    vm_config: fields.FilterConfig = optional(None, "The VM's config, written as `config` is.", {"seed": 1})
    fuel: fields.Fuel = optional(5_000_000, "Units of work per callback, about one per instruction.")
    memory: fields.Memory = optional("16MiB", "Largest linear memory.")
    deadline: fields.Deadline = optional("25ms", "CPU time per callback: a busy machine ends none.")
    on_failure: Annotated[Literal["closed", "open"], Choice()] = optional(
        "closed", "When a callback fails: answer 503, or pass the request on without this filter."
    )
    isolation: Annotated[Literal["shared", "request"], Choice()] = optional(
        "shared", "Components only: one instance for all requests of a worker, or a new one for each request."
    )
    quarantine: Quarantine | None = optional(
        {}, "When it is taken out because it keeps failing; null for never.", {"faults": 10, "window": "5m"}
    )
    allow_on_headers_stop_iteration: fields.Switch = optional(
        False, "A pause in a headers callback holds only the headers, not the body (Envoy's option of that name)."
    )
    canary: Canary | None = optional(
        None, "Another version, for a share of the clients.", {"wasm": "filters/basic-auth-2.wasm"}
    )
    shadow: Shadow | None = optional(
        None, "Another version, which sees a copy of the traffic.", {"wasm": "filters/basic-auth-2.wasm"}
    )
    probe: Probe | None = optional(None, "A made-up request that shows whether it works.", {"expect": {"status": 401}})
    limits: FilterLimits = optional({}, "Caps on what the filter may be and hold.", {"module": "32MiB"})
    capabilities: Capabilities = optional(
        {}, "What the filter may do beyond its own stream.", {"allowed_hosts": ["cluster:auth"]}
    )

    def config_bytes(self) -> bytes:
        """What the filter reads as its plugin configuration."""
        return config_bytes(self.config)

    def vm_config_bytes(self) -> bytes:
        """What the filter reads as its VM configuration."""
        return config_bytes(self.vm_config)

    def version(self, kind: Literal["canary", "shadow"]) -> "Filter | None":
        """The other version as a filter of its own, called NAME@canary or NAME@shadow. A shadow shares data with nobody."""
        other = self.canary if kind == "canary" else self.shadow
        if other is None:
            return None
        changed: dict[str, Any] = {
            "name": f"{self.name}@{kind}", "wasm": other.wasm, "sha256": other.sha256, "canary": None, "shadow": None,
            "probe": None, "signed_as": self.signed_as or self.name,
        }  # fmt: skip
        hidden = {key: value for key, value in self._hidden.items() if key not in ("wasm", "sha256")}
        if "config" in other.model_fields_set:
            changed["config"] = other.config
            hidden.pop("config", None)
        if kind == "shadow":
            changed["vm_id"] = ""
        copied = self.model_copy(update=changed)
        copied._hidden = {**hidden, **{key: other._hidden[key] for key in changed if key in other._hidden}}
        return copied


def with_versions(filters: Sequence[Filter]) -> list[Filter]:
    """The filters, and behind them the other versions that they have."""
    kinds: tuple[Literal["canary", "shadow"], ...] = ("canary", "shadow")
    others = [other for one in filters for kind in kinds if (other := one.version(kind)) is not None]
    return [*filters, *others]
