"""Where filters come from, and whose word counts, in the config."""

from pydantic import Field

from proxy.config import fields
from proxy.config.fields import Duration
from proxy.config.section import Model, optional


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
