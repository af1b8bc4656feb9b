"""The config's routes: which request goes where, and what it changes about the filters."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from proxy.config import fields
from proxy.config.fields import Duration
from proxy.config.filter import config_bytes
from proxy.config.problem import WrongValueError, show
from proxy.config.section import Model, optional, require_one


class HeaderMatch(Model):
    """A condition on one request header. A plain string is short for `exact`."""

    exact: fields.Text | None = optional(None, "The whole value.", "v2")
    regex: fields.Regex | None = optional(None, "A regular expression for the whole value.", "v[0-9]+")
    present: fields.Switch | None = optional(None, "true: the header must be there; false: it must not.", True)

    @classmethod
    def expand(cls, data: Any) -> Any:
        if isinstance(data, bool | int | float):
            raise WrongValueError(f"{show(data)} is not text", fields.QUOTE)
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
