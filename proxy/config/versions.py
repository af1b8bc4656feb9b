"""Other versions of a filter, in its section of the config: canary and shadow."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from proxy.config import fields
from proxy.config.fields import Count, Duration
from proxy.config.section import Model, optional, require_one


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
