"""A filter's probe, in its section of the config."""

from typing import Annotated

from proxy.config import fields
from proxy.config.section import Model, optional


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
