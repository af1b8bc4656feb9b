"""Where a filter's module may come from other than a file: `https://...` and `oci://registry/repository:tag[@sha256:...]`.

The form is checked here and nothing is asked of the network. An OCI reference is as in the distribution specification (OCI
distribution 1.1, "Pulling manifests"), with two differences: the registry is always written, and so is the tag or the digest.
"""

import re
from typing import Literal
from urllib.parse import urlsplit

from proxy.config.problem import WrongValueError, show
from proxy.config.secrets import MASK, Secret

PREFIXES = ("https://", "oci://")
HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)(?::[1-9][0-9]{0,4})?"
PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
OCI = re.compile(
    rf"oci://(?P<registry>{HOST})/(?P<repository>{PART}(?:/{PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
HTTPS = re.compile(rf"https://(?P<registry>{HOST})/[\x21\x24-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+")
EXAMPLES = "https://example.com/filter.wasm or oci://registry.example.com/filters/name:1.0.0"
VERSION = re.compile(r"v?([0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?)")


class Remote(str):
    """The text as it was written, and its parts. `digest` is an OCI manifest's, `sha256:` and 64 digits."""

    __slots__ = ("digest", "kind", "registry", "repository", "secret", "tag")

    kind: Literal["https", "oci"]
    registry: str
    """host[:port]"""
    repository: str
    tag: str | None
    digest: str | None
    secret: bool

    @property
    def shown(self) -> str:
        """For logs and pages: without a query, which may be a password, and nothing of what came through a reference."""
        return MASK if self.secret else self.partition("?")[0]

    @property
    def stem(self) -> str:
        """The last name in it, without `.wasm`: what the operator calls the filter there."""
        path = self.repository if self.kind == "oci" else urlsplit(self).path
        return path.rpartition("/")[2].removesuffix(".wasm")

    @property
    def version(self) -> str | None:
        """The version that an OCI tag such as 1.2.3 or v1.2.3 states."""
        match = VERSION.fullmatch(self.tag or "")
        return None if match is None else match[1]


def parse_remote(text: str) -> Remote:
    """Raises WrongValueError."""
    remote = Remote(text)
    remote.secret = isinstance(text, Secret)
    remote.repository, remote.tag, remote.digest = "", None, None
    if text.startswith("oci://"):
        match = OCI.fullmatch(text)
        if match is None:
            raise WrongValueError(f"{show(text)} is no OCI reference", "write oci://registry/repository:tag")
        remote.kind = "oci"
        remote.repository, remote.tag, remote.digest = match["repository"], match["tag"], match["digest"]
        if remote.tag is None and remote.digest is None:
            raise WrongValueError(f"{show(text)} has neither a tag nor a digest", "write :TAG behind it, or @sha256:DIGEST")
    else:
        match = HTTPS.fullmatch(text)
        if match is None:
            mend = f"write {EXAMPLES.partition(' ')[0]}, without user, fragment and spaces"
            raise WrongValueError(f"{show(text)} is no https URL of a file", mend)
        remote.kind = "https"
    remote.registry = match["registry"]
    port = re.search(r":([0-9]+)$", remote.registry)
    if port and int(port[1]) > 65535:
        raise WrongValueError(f"{show(text)} has no valid port", "write a port from 1 to 65535")
    return remote
