"""The config's listeners: where clients are served."""

from typing import Annotated, Literal

from pydantic import Field

from proxy.config import fields
from proxy.config.fields import Choice, Count, Duration, LineSize, Size
from proxy.config.section import Model, optional


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
