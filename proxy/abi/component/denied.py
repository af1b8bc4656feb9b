"""What a component may not call although it imports it: `capabilities.host_functions`, by names such as `kv.get`.

Imports are linked whole, so a denied function is there and does nothing: it answers with its error if it has one, with none if
its result is an option, and with nothing where there is no result. One that can only answer with a value (clock, random) traps:
an invented number would be taken for a true one.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import structlog

from proxy.abi.component.host import CALL_FUEL, Host, HostFunction
from proxy.abi.component.instance import DeniedError
from proxy.abi.component.types import Function, Option, Plain, Result, Type, Variant
from proxy.abi.component.worlds import World, function_name
from proxy.telemetry.logging import limited

log = structlog.get_logger("filter")

STATUS: Final = "Denied"
REASON: Final = b"capabilities.host_functions does not list it"


def permitted(host: Host, world: World, allowed: Sequence[str] | None) -> Mapping[tuple[str, str], HostFunction]:
    """The host's functions, with others in the place of those that no pattern of `allowed` matches; None allows all."""
    if allowed is None:
        return host.functions
    found = dict(host.functions)
    for interface, name in found:
        shown = function_name(interface, name)
        if not any(fnmatchcase(shown, pattern) for pattern in allowed):
            found[interface, name] = denied(host, shown, world.imports[interface][name])
    return found


def denied(host: Host, name: str, function: Function) -> HostFunction:
    """What answers in the place of a function; the operator is told once a second and filter, as with proxy-wasm."""
    answer = refusal(function.result)

    def deny(*_: Any) -> Any:
        host.charge(CALL_FUEL)
        plugin = host.configured.plugin
        plugin.count_error(name, STATUS)
        if not limited(("host_call_denied", plugin.name, name), 1):
            log.warning("host_call_denied", filter=plugin.name, function=name, allow=f"capabilities.host_functions: [{name}]")
        if answer is TRAPS:
            raise DeniedError(f"{name}: {REASON.decode()}")
        return answer

    return deny


TRAPS: Final = object()


def refusal(result: Type | None) -> Any:
    """A value of this type that says no; TRAPS if there is none."""
    match result:
        case None | Option():
            return None
        case Result(_, Plain("string")):
            return False, REASON
        case Result(_, Variant(cases)) if ("refused", Plain("string")) in cases:
            return False, (cases.index(("refused", Plain("string"))), REASON)
        case Result(_, None):
            return False, None
    return TRAPS
