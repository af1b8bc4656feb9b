"""The typed config. Every model is frozen; an unknown key is an error; durations are seconds, sizes bytes.

Text that came through `${env:}` or `${file:}` works in the fields but is `***` in `repr`, `model_dump` and `redacted`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, PrivateAttr, model_serializer, model_validator
from pydantic import ModelWrapValidatorHandler as Handler
from pydantic import SerializerFunctionWrapHandler as Serializer
from pydantic_core import CoreSchema

from proxy.config import fields
from proxy.config.fields import Choice, Count, CountOrNone, Duration, LineSize, Size
from proxy.config.problem import KeyPath, Problem, WrongValueError, path_text, show
from proxy.config.secrets import holds_secret, mask


def optional(default: Any, description: str, *examples: Any, **options: Any) -> Any:
    """A field with a default, written as the config file would write it."""
    return Field(default=default, description=description, examples=list(examples) or [default], **options)


class Model(BaseModel):
    """A section of the config that remembers which of its values carried a secret."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True, use_attribute_docstrings=False
    )
    # pydantic wants the underscore on what is no field.
    _hidden: dict[str, object] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def remember_secrets(cls, data: Any, handler: Handler[Self]) -> Self:
        data = cls.expand(data)
        model = handler(data)
        if isinstance(data, Mapping):
            model._hidden.update((key, mask(value)) for key, value in data.items() if holds_secret(value))
        return model

    @classmethod
    def expand(cls, data: Any) -> Any:
        """Short forms written in full."""
        return data

    @model_serializer(mode="wrap")
    def hide_secrets(self, serializer: Serializer) -> dict[str, Any]:
        data: dict[str, Any] = serializer(self)
        # A section hides its own secrets; here only plain values are replaced.
        data.update((key, value) for key, value in self._hidden.items() if not holds_model(getattr(self, key)))
        return data

    def redacted(self) -> dict[str, Any]:
        """The effective values as JSON types, durations and sizes in the config's own notation, secrets as `***`."""
        return self.model_dump(mode="json")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.redacted().items())})"

    def __str__(self) -> str:
        return repr(self)


def holds_model(value: object) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    return any(isinstance(item, BaseModel) for item in items)


class ListenerTls(Model):
    """TLS towards clients."""

    certificate: fields.CertificateFile = Field(
        description="PEM file: the certificate, then its chain.", examples=["tls/cert.pem"]
    )
    private_key: fields.KeyFile = Field(description="PEM file: the certificate's key.", examples=["tls/key.pem"])


class ListenerLimits(Model):
    """What a request may be at most. Over a head limit: 431 or 414; over `body`: 413."""

    line: LineSize = optional("8KiB", "Longest request line.")
    field: LineSize = optional("8KiB", "Longest header field, name and value.")
    headers: Count = optional(100, "Most header fields.")
    head: Annotated[int, fields.size("60KiB", 1024, 16 << 20)] = optional("60KiB", "Longest request head in all.")
    body: Size | None = optional(None, "Longest request body; unlimited without it.", "10MiB")


class Listener(Model):
    """A socket on which clients are served."""

    address: fields.ListenAddress = Field(
        description="host:port to listen on; port 0 takes a free one.", examples=["127.0.0.1:8080"]
    )
    tls: ListenerTls | None = optional(None, "Serve HTTPS.", {"certificate": "tls/cert.pem", "private_key": "tls/key.pem"})
    head_timeout: Duration = optional("10s", "Longest time from a request's first byte to the end of its head.")
    body_timeout: Duration = optional("30s", "Longest time inside a request body for the next `body_pace` bytes, or its end.")
    body_pace: Annotated[int, fields.size("1KiB", 0)] = optional(
        "1KiB", "Least bytes of a request body in each `body_timeout`; 0B: any byte will do."
    )
    keepalive_timeout: Duration = optional("60s", "Longest time between two requests on a connection.")
    via: fields.Pseudonym | None = optional("penstock", "Our name in the Via header (RFC 9110 7.6.3); null for none.")
    forwarded: Annotated[Literal["append", "replace", "off"], Choice()] = optional(
        "append", "X-Forwarded-For, -Proto and -Host: add to what came, replace what came, or leave alone."
    )
    request_id: Annotated[Literal["keep", "replace", "off"], Choice()] = optional(
        "keep", "X-Request-Id: keep a valid one and make one if there is none, always make one, or neither."
    )
    trailers: fields.Switch = optional(
        False, "Take trailers from clients and send them trailers (chunked messages only); without it they are dropped.", True
    )
    underscores: Annotated[Literal["reject", "drop", "keep"], Choice()] = optional(
        "reject",
        "A header name with an underscore, which some services read as a hyphen: refuse the request, drop the field, keep it.",
    )
    max_connections: Count = optional(10_000, "Most connections at a time per worker; one more gets 503 and is closed.")
    limits: ListenerLimits = optional({}, "What a request may be at most.", {"head": "60KiB"})


class ClusterTls(Model):
    """TLS towards the endpoints."""

    ca: fields.CertificateFile | None = optional(
        None, "PEM file with the trusted certificates; the system's without it.", "tls/ca.pem"
    )
    server_name: fields.Text | None = optional(
        None, "Name to send (SNI) and to verify; the endpoint's host without it.", "service.internal"
    )
    verify: fields.Switch = optional(True, "Verify the certificate and its name.")


class Cluster(Model):
    """A service: endpoints that can all answer the same requests."""

    name: fields.Name = Field(description="What routes call it.", examples=["service"])
    endpoints: tuple[fields.EndpointAddress, ...] = Field(
        min_length=1, description="host:port of each server, used round robin.", examples=[["127.0.0.1:9000"]]
    )
    connect_timeout: Duration = optional("2s", "Longest time to connect, TLS included.")
    idle_timeout: Duration = optional("30s", "How long an unused connection is kept.")
    max_connections: Count = optional(1024, "Most connections per worker.")
    max_pending: CountOrNone = optional(
        1024, "Most requests per worker that wait for a connection; one more gets 503 and its connection is closed."
    )
    trailers: fields.Switch = optional(
        False, "Take trailers from endpoints and send them trailers (chunked messages only); without it they are dropped.", True
    )
    tls: ClusterTls | None = optional(None, "Speak HTTPS to the endpoints.", {"ca": "tls/ca.pem"})


class HeaderMatch(Model):
    """A condition on one request header. A plain string is short for `exact`."""

    exact: fields.Text | None = optional(None, "The whole value.", "v2")
    regex: fields.Regex | None = optional(None, "A regular expression for the whole value.", "v[0-9]+")
    present: fields.Switch | None = optional(None, "true: the header must be there; false: it must not.", True)

    @classmethod
    def expand(cls, data: Any) -> Any:
        if isinstance(data, bool | int | float):
            raise WrongValueError(f"{show(data)} is not text", f'write "{show(data)}" in quotes')
        return {"exact": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        require_one("a header condition", ("exact", "regex", "present"), self, '"v2" or {present: true}')
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        json_schema = handler.resolve_ref_schema(handler(schema))
        mapping = dict(json_schema)
        json_schema.clear()
        json_schema.update(title="HeaderMatch", anyOf=[{"type": "string", "examples": ["v2"]}, mapping])
        return json_schema


class Match(Model):
    """Which requests a route takes: all conditions must hold. Exactly one of path, prefix and regex."""

    path: fields.PathPrefix | None = optional(None, "The whole path, without the query.", "/health")
    prefix: fields.PathPrefix | None = optional(
        None, "What the path begins with, letter for letter: /api takes /api, /api/x and /apix too.", "/api/"
    )
    regex: fields.Regex | None = optional(None, "A regular expression for all of the path, less the query.", "/v[0-9]+/.*")
    host: fields.HostPattern | None = optional(
        None, 'The host, without port, in any case. "*.example.com" takes subdomains at any depth.', "api.example.com"
    )
    methods: tuple[fields.Method, ...] | None = optional(None, "The methods; all without it.", ["GET", "HEAD"], min_length=1)
    headers: dict[fields.HeaderName, HeaderMatch] = optional({}, "Conditions on headers.", {"x-version": "v2"})

    @classmethod
    def expand(cls, data: Any) -> Any:
        headers = data.get("headers") if isinstance(data, Mapping) else None
        names = [str(name).lower() for name in headers] if isinstance(headers, Mapping) else []
        for name in names:
            if names.count(name) > 1:
                raise WrongValueError(f"the header {name} is here twice", "keep one: names have no case")
        return data

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        require_one("a match", ("path", "prefix", "regex"), self, "prefix: /")
        return self


def require_one(what: str, keys: tuple[str, ...], model: Model, example: str) -> None:
    written = [key for key in keys if getattr(model, key) is not None]
    listed = f"{', '.join(keys[:-1])} and {keys[-1]}"
    if not written:
        raise WrongValueError(f"{what} needs one of {listed}", f"write one, such as {example}")
    if len(written) > 1:
        raise WrongValueError(f"{what} takes only one of {listed}, here are {' and '.join(written)}", "keep one")


def config_bytes(config: Any) -> bytes:
    """What a filter reads as its configuration: text as it stands, mappings and lists as compact JSON, b"" for none."""
    if config is None:
        return b""
    if isinstance(config, str):
        return config.encode("utf-8")
    return json.dumps(config, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


class RouteFilter(Model):
    """What one route changes about one filter."""

    enabled: fields.Switch = optional(True, "false: this route's requests pass the filter by.", False)
    config: fields.FilterConfig = optional(
        None, "The filter's config on this route, instead of its own; its own if the key is not written.", {"limit": 10}
    )

    def config_bytes(self) -> bytes | None:
        """The route's own configuration for the filter; None if the route has none and the filter's own holds."""
        return config_bytes(self.config) if "config" in self.model_fields_set else None


class Route(Model):
    """Where requests go. The first route that matches wins."""

    name: fields.Name | None = optional(None, "What logs call it; its match without it.", "api")
    match: Match = Field(description="Which requests it takes.", examples=[{"prefix": "/"}])
    cluster: fields.Name = Field(description="The cluster that answers.", examples=["service"])
    timeout: fields.DurationOrNone = optional(
        "15s", "Longest time from the end of the request to the end of the response; 0 for any."
    )
    idle_timeout: Duration = optional("5m", "Longest silence on the stream.")
    filters: dict[str, RouteFilter] = optional(
        {}, "Filters to switch off or configure otherwise on this route, by name.", {"rate-limit": {"enabled": False}}
    )

    @property
    def label(self) -> str:
        """The route's name, or else what it matches, such as `prefix:/`."""
        if self.name is not None:
            return self.name
        match = self.match.redacted()
        kind = next(key for key in ("path", "prefix", "regex") if match[key] is not None)
        return f"{match['host'] or ''}{'+' if match['host'] else ''}{kind}:{match[kind]}"


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
        None, "The host functions it may import, * standing for any part; without it, the ABI less what needs a grant.",
        ["proxy_log", "proxy_get_*"],
    )  # fmt: skip
    env: dict[fields.VariableName, fields.Text] = optional({}, "Environment variables it sees.", {"MODE": "strict"})
    refused: tuple[fields.Text, ...] = optional(
        [], "What its manifest asks for and it does not get on purpose.", ["https://telemetry.example.com"]
    )


class Sticky(Model):
    """What keeps a client on one side. Exactly one key; a request without it goes to the live version."""

    header: fields.HeaderName | None = optional(None, "This request header's value.", "x-user")
    cookie: fields.Text | None = optional(None, "This cookie's value.", "session")
    client_address: Literal[True] | None = optional(None, "The address from which the client connects.", True)

    @model_validator(mode="after")
    def exactly_one(self) -> Self:
        require_one("sticky", ("header", "cookie", "client_address"), self, "cookie: session")
        return self


class Rollback(Model):
    """When a canary is taken out by itself. Null for a bound that should not count."""

    traps: Count | None = optional(3, "So many faults of the canary, and more for each stream than the live version has.")
    errors_5xx: fields.Percent | None = optional("1%", "The share of its streams that end in a 5xx is higher by this much.")
    p99: fields.Factor | None = optional(2, "Its 99th percentile of the stream's time is so many times the live version's.")
    fuel: fields.Factor | None = optional(2, "Its fuel for each stream is so many times the live version's.")
    after: Annotated[int, fields.whole(20, 10**9)] = optional(100, "Streams on each side before 5xx, p99 and fuel are judged.")
    window: Duration = optional("5m", "Figures of so long count.")


class Canary(Model):
    """Another version of the filter, for a share of the clients."""

    wasm: fields.WasmSource = Field(description="The other version.", examples=["filters/basic-auth-2.wasm"])
    sha256: fields.Sha256 | None = optional(None, "Its SHA-256; another module is refused.", "9f86d081" * 8)
    config: fields.FilterConfig = optional(None, "Its config; the filter's own if the key is not written.", {"realm": "staff"})
    weight: fields.Percent = optional("5%", "The share of the clients, or of the streams without `sticky`.")
    sticky: Sticky | None = optional(None, "What keeps a client on one side.", {"cookie": "session"})
    rollback: Rollback | None = optional({}, "When it is taken out by itself; null for never.", {"traps": 3})


class Shadow(Model):
    """Another version of the filter, which sees a copy of the traffic and answers nobody."""

    wasm: fields.WasmSource = Field(description="The other version.", examples=["filters/basic-auth-2.wasm"])
    sha256: fields.Sha256 | None = optional(None, "Its SHA-256; another module is refused.", "9f86d081" * 8)
    config: fields.FilterConfig = optional(None, "Its config; the filter's own if the key is not written.", {"realm": "staff"})
    sample: fields.Percent = optional("1%", "The share of the streams that it sees.")


class ProbeRequest(Model):
    """The request that a probe makes."""

    method: fields.Method = optional("GET", "Its method.")
    path: fields.Text = optional("/", "Its path and query.")
    headers: dict[fields.HeaderName, fields.Text] = optional({}, "Its headers.", {"x-probe": "1"})
    body: fields.Text = optional("", "Its body.", "hello")


class ProbeExpect(Model):
    """What must come of a probe."""

    status: Annotated[int, fields.whole(200, 599)] | None = optional(
        None, "The filter answers with this status; without it, it must let the request pass.", 401
    )
    headers: dict[fields.HeaderName, fields.Text] = optional(
        {}, "Headers that must be in the answer, or in the request that passes.", {"x-user": "probe"}
    )


class Probe(Model):
    """A made-up request through this filter alone, in each worker, off the request path."""

    request: ProbeRequest = optional({}, "The request.", {"path": "/health"})
    expect: ProbeExpect = optional({}, "What must come of it.", {"status": 401})
    every: Annotated[float, fields.duration("10s", 0.1)] = optional("10s", "How often.")


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


class TrustedKey(Model):
    """Who may sign filters."""

    name: fields.Name = Field(description="What logs and lists call the signer.", examples=["acme"])
    key: fields.PublicKey = Field(
        description="The public key, as penstock filter keygen prints it.",
        examples=["ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="],
    )
    filters: tuple[fields.Text, ...] | None = optional(
        None, "The names that it may sign for, * standing for any part; all without it.", ["acme-*"]
    )


class RegistryLogin(Model):
    """Who we are to a registry."""

    username: fields.Text = Field(description="The user.", examples=["reader"])
    password: fields.Text = Field(description="The password, or a token.", examples=["${env:REGISTRY_PASSWORD}"])


class Sources(Model):
    """How filters are fetched whose `wasm` is no path."""

    refresh: fields.DurationOrNone = optional(
        "5m", "How often a source that may change (a tag, a URL, no sha256) is asked; 0: only at the start and at a reload."
    )
    timeout: Duration = optional("30s", "Longest time for one filter, redirects and names included.")
    allowed_networks: tuple[fields.Network, ...] = optional(
        [], "Networks that are no public ones where sources may be all the same.", ["10.0.0.0/8"]
    )
    ca: fields.CertificateFile | None = optional(
        None, "PEM file with the trusted certificates; the system's without it.", "tls/ca.pem"
    )
    registries: dict[fields.Text, RegistryLogin] = optional(
        {}, "Logins, by host[:port].", {"registry.example.com": {"username": "reader", "password": "${env:REGISTRY_PASSWORD}"}}
    )
    store: fields.NewDirectory | None = optional(
        None, "Where what was fetched is kept; sources in the cache's folder ($PENSTOCK_CACHE) without it.", "/var/lib/penstock"
    )


class Admin(Model):
    """The operator's own port: a page, and an API."""

    address: fields.ListenAddress = optional("127.0.0.1:9901", "host:port; keep it on loopback, or set a token.")
    token: fields.Token | None = optional(
        None, "Whoever asks has to send `Authorization: Bearer TOKEN`.", "${file:secrets/admin-token}"
    )
    hosts: tuple[fields.Text, ...] = optional(
        [], "Names by which it is asked, beside localhost and addresses: another Host gets 421.", ["gateway.internal"]
    )
    redact: tuple[fields.HeaderName, ...] = optional(
        ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"],
        "Headers whose values are not shown with recent streams.",
    )


class Overload(Model):
    """What a worker takes on at most; what is too much gets 503 and its connection is closed."""

    streams: Count = optional(10_000, "Most streams at a time per worker.")
    memory: Size | None = optional(
        None, "A worker's memory in RAM: from 95 % of it on no stream is taken, until it is below 90 %.", "1GiB"
    )


class Reload(Model):
    """When the gateway takes a changed config, besides SIGHUP and `penstock reload`."""

    watch: fields.Switch = optional(
        True, "When the config or a file that it names changes: filters, certificates, secrets, the filters directory.", False
    )


class Tracing(Model):
    """OpenTelemetry traces, sent as OTLP over HTTP; needs `pip install 'penstock[otel]'`."""

    endpoint: fields.Url = Field(description="Where spans are sent.", examples=["http://127.0.0.1:4318/v1/traces"])
    sample: fields.Percent = optional(
        "1%", "The share of the streams that begin a trace here; a stream that comes with a context keeps its sender's choice."
    )
    service_name: fields.Text = optional("penstock", "What traces call this gateway.", "edge")
    headers: dict[fields.HeaderName, fields.Text] = optional(
        {}, "Headers for the collector.", {"authorization": "${env:COLLECTOR_TOKEN}"}
    )
    timeout: Duration = optional("5s", "Longest time for sending a batch.")


class Log(Model):
    """What is logged, and how."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Choice()] = optional("info", "The least level written.")
    format: Annotated[Literal["auto", "json", "console"], Choice()] = optional(
        "auto", "JSON lines, or text for people; auto: text on a terminal."
    )
    access: fields.Switch = optional(True, "One line per request.")


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
