"""Filters in OCI registries, by oras-py on guarded connections.

A filter is one manifest with the module as a layer, its signature and its filter.yaml as two more, each optional: one tag
moves all of them at once. Every blob is compared with its digest, the manifest with the reference's if it has one.
"""

import hashlib
import importlib
import importlib.util
import io
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from proxy.config.remote import Remote
from proxy.sources.guard import FetchError, Guard
from proxy.sources.https import AGENT, TooLargeError

INSTALL: Final = "pip install 'penstock[oci]'"
MANIFESTS: Final = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
MODULES: Final = (
    "application/wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
)
SIGNATURE: Final = "application/vnd.penstock.signature.v1+json"
ASKS: Final = "application/vnd.penstock.manifest.v1+yaml"
LARGEST_MANIFEST: Final = 4 << 20
"""Bytes, as in the distribution specification."""
LARGEST_PART: Final = 1 << 20
"""Bytes of a signature, or of a filter.yaml."""
DIGEST: Final = re.compile("sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """`module` is None if the manifest is the one that was had before."""

    digest: str
    module: bytes | None
    signature: bytes | None = None
    manifest: bytes | None = None


def installed() -> bool:
    return importlib.util.find_spec("oras") is not None


def pull(guard: Guard, remote: Remote, ca: str | None, limit: int, login: tuple[str, str] | None, known: str = "") -> Artifact:
    """The filter that the reference names. `known`: the digest of the manifest that was had before. Raises FetchError."""
    registry = make_registry(guard, remote, ca, login)
    reference = remote.digest or remote.tag
    data = get(registry, remote, f"manifests/{reference}", LARGEST_MANIFEST, ", ".join(MANIFESTS))
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if remote.digest is not None and digest != remote.digest:
        raise FetchError(f"the registry's manifest has digest {digest}", "take that, if it is the one you mean", lasting=True)
    if digest == known:
        return Artifact(digest, None)
    layers = layers_of(data)
    module = one_of(layers, MODULES)
    if module is None:
        found = ", ".join(sorted({str(layer.get("mediaType"))[:80] for layer in layers})) or "none"
        raise FetchError(f"no layer is a module of type {MODULES[0]}; its layers: {found}", "push the .wasm file itself", True)
    parts = {}
    for kind in (SIGNATURE, ASKS):
        layer = one_of(layers, (kind,))
        parts[kind] = None if layer is None else blob(registry, remote, layer, LARGEST_PART)
    return Artifact(digest, blob(registry, remote, module, limit), parts[SIGNATURE], parts[ASKS])


def layers_of(data: bytes) -> list[dict[str, Any]]:
    try:
        manifest = json.loads(data)
        kind, layers = manifest.get("mediaType", MANIFESTS[0]), manifest.get("layers")
        if kind in MANIFESTS and isinstance(layers, list) and all(isinstance(layer, dict) for layer in layers):
            return layers
    except (ValueError, AttributeError, RecursionError):
        pass
    raise FetchError(
        "it is no manifest with layers", "name an artifact that holds one .wasm file; no image index", lasting=True
    )


def one_of(layers: list[dict[str, Any]], kinds: tuple[str, ...]) -> dict[str, Any] | None:
    found = [layer for layer in layers if layer.get("mediaType") in kinds]
    if len(found) > 1:
        raise FetchError(f"{len(found)} layers are of type {kinds[0]}", "push one filter to one reference", lasting=True)
    return found[0] if found else None


def blob(registry: Any, remote: Remote, layer: dict[str, Any], limit: int) -> bytes:
    digest = str(layer.get("digest"))
    if not DIGEST.fullmatch(digest):
        raise FetchError("a layer has no SHA-256 digest", "push it again", lasting=True)
    data = get(registry, remote, f"blobs/{digest}", limit, "*/*")
    if hashlib.sha256(data).hexdigest() != digest.partition(":")[2]:
        raise FetchError(f"the registry gives other bytes for {digest}", "do not use this registry")
    return data


def get(registry: Any, remote: Remote, path: str, limit: int, accept: str) -> bytes:
    requests: Any = importlib.import_module("requests")
    registry.limit = limit
    url = f"https://{remote.registry}/v2/{remote.repository}/{path}"
    try:
        response = registry.do_request(url, "GET", headers={"Accept": accept})
    except requests.TooManyRedirects:
        raise FetchError("the registry redirects too often", "look at the registry") from None
    except requests.exceptions.InvalidSchema:
        raise FetchError("the registry leads to what is not https", "look at the registry", lasting=True) from None
    except requests.RequestException as error:
        raise FetchError(f"the registry cannot be asked: {innermost(error)}", "look at the registry") from None
    except ValueError:  # oras: no way to answer the challenge
        raise FetchError("the registry wants a login", f"write sources: {{registries: {{{remote.registry}: ...}}}}") from None
    if response.status_code in (401, 403):
        raise FetchError("the registry refuses us", f"look at sources.registries, {remote.registry}")
    if response.status_code == 404:
        raise FetchError(f"the registry has no {remote.shown}", "look at the repository and the tag")
    if response.status_code != 200:
        raise FetchError(f"the registry answers {response.status_code}", "look at the registry")
    data: bytes = response.content
    return data


def innermost(error: BaseException) -> str:
    """The cause under the layers of requests and urllib3, which name objects of theirs."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {error}"[:200]


def make_registry(guard: Guard, remote: Remote, ca: str | None, login: tuple[str, str] | None) -> Any:
    """oras' client, which speaks only https, only to checked addresses, and never reads more than its `limit`."""
    if not installed():
        raise FetchError("oci:// needs oras", INSTALL, lasting=True)
    provider: Any = importlib.import_module("oras.provider")
    tokens: Any = importlib.import_module("oras.auth.token")
    adapters: Any = importlib.import_module("requests.adapters")
    pools: Any = importlib.import_module("urllib3.connectionpool")
    connections: Any = importlib.import_module("urllib3.connection")
    answers: Any = importlib.import_module("urllib3.response")

    class Connection(connections.HTTPSConnection):  # type: ignore[misc]
        def _new_conn(self) -> Any:
            return guard.dial(self._dns_host, self.port)

    class Pool(pools.HTTPSConnectionPool):  # type: ignore[misc]
        ConnectionCls = Connection

    class Adapter(adapters.HTTPAdapter):  # type: ignore[misc]
        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options)
            self.poolmanager.pool_classes_by_scheme = {"https": Pool}

        def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
            # Every request passes here, redirects and token requests included.
            options.update(stream=True, timeout=guard.left(), proxies=None)
            response = super().send(request, *arguments, **options)
            data = b""
            while len(data) <= registry.limit and (piece := response.raw.read(1 << 16, decode_content=False)):
                data += piece
                guard.left()
            if len(data) > registry.limit:
                raise TooLargeError(len(data), registry.limit)
            response.raw.close()
            response.raw = answers.HTTPResponse(
                io.BytesIO(data), response.headers, response.status_code, preload_content=False, request_method=request.method
            )
            return response

    class Auth(tokens.TokenAuth):  # type: ignore[misc]
        def authenticate_request(self, original: Any, headers: Any, refresh: bool = False) -> Any:
            if not original.headers.get("Www-Authenticate", "").lower().startswith("basic"):
                return super().authenticate_request(original, headers, refresh)
            basic = getattr(self, "_basic_auth", None)
            return {**headers, **({"Authorization": f"Basic {basic}"} if basic else {})}, basic is not None

    class Registry(provider.Registry):  # type: ignore[misc]
        # Without oras' five tries with pauses: the gateway has a back-off of its own.
        do_request = provider.Registry.do_request.__wrapped__
        limit = LARGEST_MANIFEST

    registry: Any = Registry(remote.registry, tls_verify=ca or True)
    session = registry.session
    registry.auth = Auth()
    registry.auth.session, registry.auth.prefix, registry.auth._tls_verify = session, "https", ca or True
    session.trust_env = False
    session.max_redirects = 5
    session.headers.update({"User-Agent": AGENT, "Accept-Encoding": "identity"})
    session.adapters.clear()
    session.mount("https://", Adapter(max_retries=0))
    if login is not None:
        registry.auth.set_basic_auth(*login)
    return registry
