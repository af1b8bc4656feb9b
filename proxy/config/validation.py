"""pydantic's findings as problems that name the key, the line and what to write."""

import json
from collections.abc import Iterator
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from proxy.config.fields import Place
from proxy.config.problem import KeyPath, WrongValueError, show
from proxy.config.yaml import Document

T = TypeVar("T", bound=BaseModel)

MISSING = object()
ENVOYS = frozenset(("static_resources", "dynamic_resources", "layered_runtime", "cluster_manager", "overload_manager", "node"))
KONGS = frozenset(("_format_version", "_transform", "services", "upstreams", "consumers", "plugins"))
"""Keys at the top of the configs that people come with."""


def validate(model: type[T], document: Document, value: object, place: Place) -> T | None:
    """The model made from the value; None, with the problems reported to the document, if it does not fit."""
    found: ValidationError
    try:
        return model.model_validate(value, context=place)
    except ValidationError as error:
        found = error
    errors = found.errors(include_url=False)
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    misspelt = {(*path[:-1], near) for path in unknown if (near := near_key(model, path)) is not None}
    for details in errors:
        # A wrong key of a mapping is located as (..., key, "[key]").
        path = details["loc"][:-1] if details["loc"][-1:] == ("[key]",) else details["loc"]
        if details["type"] == "missing" and path in misspelt:
            continue
        # pydantic counts wrong items as absent: they have their own errors.
        if details["type"] == "too_short" and at(value, path):
            continue
        document.report_unless_known(path, *describe(model, value, path, details))
    return None


def describe(model: type[BaseModel], value: object, path: KeyPath, details: ErrorDetails) -> tuple[str, str]:
    """What is wrong with the value at the path, and what to write."""
    written = at(value, path)
    if written is None and details["type"] != "missing":
        return "has no value", f"write {example(model, path)}, or remove the key"
    match details["type"]:
        case "value_error" if isinstance(error := details["ctx"]["error"], WrongValueError):
            return error.problem, error.mend
        case "extra_forbidden":
            return describe_unknown_key(model, path)
        case "missing":
            return "is missing", f"write {example(model, path)}"
        case "too_short":
            return "is an empty list", f"write at least one item, such as {example(model, path)}"
        case "tuple_type" | "list_type":
            return f"{show(written)} is not a list", f"write a list, such as {example(model, path)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            if path == ():
                return f"{show(written)} is not a mapping", "write key: value lines"
            return f"{show(written)} is not a mapping", f"write a mapping, such as {example(model, path)}"
        case _:
            return f"{show(written)} does not fit", f"write {example(model, path)}"


def describe_unknown_key(model: type[BaseModel], path: KeyPath) -> tuple[str, str]:
    key = str(path[-1])
    known = list(section_fields(model, path[:-1]))
    problem = f'unknown key "{key}"'
    if is_foreign(path):
        owner = "Envoy" if key in ENVOYS else "Kong"
        return problem, f"this is a config of {owner}: docs/migrating.md says how to write it here"
    if near := near_key(model, path):
        return problem, f"write {near}"
    for name, field in section_fields(model, path[:-1]).items():
        if any(key in section.model_fields for section in sections(field.annotation)):
            return problem, f"write it under {name}:"
    return problem, f"remove it; the keys here are {', '.join(known)}"


def is_foreign(path: KeyPath) -> bool:
    """An unknown key that another gateway's config has at its top."""
    return len(path) == 1 and (path[0] in ENVOYS or path[0] in KONGS)


def near_key(model: type[BaseModel], path: KeyPath) -> str | None:
    """The key of the section that the unknown key at the path was probably meant to be."""
    if is_foreign(path):
        return None
    near = get_close_matches(str(path[-1]).lower(), list(section_fields(model, path[:-1])), 1)
    return near[0] if near else None


def at(value: object, path: KeyPath) -> object:
    for step in path:
        if isinstance(value, dict):
            value = value.get(step, MISSING)
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step]
        else:
            return MISSING
    return value


def example(model: type[BaseModel], path: KeyPath) -> str:
    """`key: value` as the field at the path could be written; for an item, its list."""
    while path and not isinstance(path[-1], str):
        path = path[:-1]
    field = section_fields(model, path[:-1]).get(str(path[-1])) if path else None
    if field is None and len(path) > 1:  # a key that the operator chose, in a mapping such as a route's filters
        return example(model, path[:-1])
    if field is None or not field.examples:
        return "another value"
    return f"{path[-1]}: {flow(field.examples[0])}"


def flow(value: object) -> str:
    """The value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and value and not set(value) & set("#{}[],\"'*&!|>%@`"):
        return value
    return json.dumps(value, ensure_ascii=False)


def section_fields(model: type[BaseModel], path: KeyPath) -> dict[str, FieldInfo]:
    """The fields of the section at the path; none where there is no section."""
    current: list[type[BaseModel]] = [model]
    for step in path:
        if isinstance(step, int) or not current:
            continue
        fields = current[0].model_fields
        # A key that is not a field names an entry of a mapping of sections: the section stays the same.
        current = list(sections(fields[step].annotation)) if step in fields else current
    return current[0].model_fields if current else {}


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models inside an annotation such as `dict[str, RouteFilter]` or `Tls | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (tuple, dict, Union, UnionType, Annotated):
        for inner in get_args(annotation):
            yield from sections(inner)
