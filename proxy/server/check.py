"""Checks a config as far as it can be checked without serving."""

from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.util import find_spec

from proxy.abi.component.worlds import function_names
from proxy.abi.proxy_wasm.signatures import CALLBACKS, ENVIRONMENT_FUNCTIONS, HOST_FUNCTIONS, LIFECYCLE, WASI_FUNCTIONS
from proxy.config.model import Config
from proxy.config.problem import Problem, show
from proxy.config.secrets import Secret
from proxy.server.assembly import prepare_filters, start_filters
from proxy.server.tls_files import check_tls_files

GRANTABLE = (*HOST_FUNCTIONS, *ENVIRONMENT_FUNCTIONS, *WASI_FUNCTIONS, *CALLBACKS, *LIFECYCLE, *function_names())
"""What `capabilities.host_functions` may name."""
ANY_FUNCTION = "write a function of the proxy-wasm ABI, of WASI or of components, such as proxy_get_* or kv.*"


def prepare(config: Config) -> list[Problem]:
    """Check the TLS files and the grants, check and compile the filters; for the supervisor, before it forks."""
    return [*check_tls_files(config), *check_tracing(config), *check_grants(config), *prepare_filters(config)]


def check(config: Config) -> list[str]:
    """Prepare, and start every filter. One line for each problem."""
    problems = prepare(config) or start_filters(config)
    return [str(problem) for problem in problems]


def check_tracing(config: Config) -> Iterator[Problem]:
    """Traces need an extra."""
    if config.tracing is not None and (find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None):
        yield config.problem(("tracing",), "OpenTelemetry is not installed", "pip install 'penstock[otel]'")


def check_grants(config: Config) -> Iterator[Problem]:
    """Host functions that do not exist: a misspelt one would silently not be granted."""
    for index, filter_ in enumerate(config.filters):
        for at, pattern in enumerate(filter_.capabilities.host_functions or ()):
            if any(fnmatchcase(name, pattern) for name in GRANTABLE):
                continue
            near = [] if isinstance(pattern, Secret) or "*" in pattern else get_close_matches(pattern, GRANTABLE, 1)
            mend = f"write {near[0]}" if near else ANY_FUNCTION
            path = ("filters", index, "capabilities", "host_functions", at)
            yield config.problem(path, f"{show(pattern)} is no host function", mend)
