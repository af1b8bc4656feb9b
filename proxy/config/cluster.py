"""The config's clusters: the services behind the gateway."""

from pydantic import Field

from proxy.config import fields
from proxy.config.fields import Count, CountOrNone, Duration
from proxy.config.section import Model, optional


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
