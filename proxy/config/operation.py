"""What the config says of the gateway's own running: admin port, overload, reloads, traces, log."""

from typing import Annotated, Literal

from pydantic import Field

from proxy.config import fields
from proxy.config.fields import Choice, Count, Duration, Size
from proxy.config.section import Model, optional


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
