"""The child process that fetches one filter: `python -m proxy.sources.fetcher`, the order as JSON on standard input.

To standard output go a line of JSON and the parts' bytes. What a source sends is a stranger's: its parsers run here, under
limits of time and memory, without the gateway's environment.
"""

import json
import resource
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from proxy.config.remote import Remote, parse_remote
from proxy.sources import oci
from proxy.sources.guard import FetchError, Guard
from proxy.sources.https import get

MEMORY = 512 << 20  # bytes of address space beside four times the module's limit
PARTS = ("module", "signature", "manifest")
MANIFEST = "filter.yaml"


def main() -> int:
    """Exit status 0, also for a source that gives nothing: the line says so."""
    order = json.load(sys.stdin)
    limit_process(order["limit"], order["seconds"])
    remote = parse_remote(order["source"])
    guard = Guard(order["networks"], time.monotonic() + order["seconds"])
    try:
        parts, same, tag = fetched(guard, remote, order)
        said: dict[str, Any] = {"tag": tag, "same": same, "sizes": {name: len(data) for name, data in parts.items()}}
    except FetchError as error:
        parts, said = {}, {"problem": error.problem, "mend": error.mend, "lasting": error.lasting}
    except ssl.SSLCertVerificationError as error:
        mend = "mend the certificate, or name its authority under sources: {ca: FILE}"
        parts, said = {}, {"problem": f"its certificate is refused: {error.verify_message}", "mend": mend}
    except TimeoutError:
        parts, said = {}, {"problem": "it took too long", "mend": "raise sources.timeout, or mend the source"}
    except MemoryError:
        parts, said = {}, {"problem": "it takes too much memory to fetch", "mend": "do not use this source"}
    except OSError as error:
        parts, said = {}, {"problem": f"it cannot be reached: {error.strerror or error}", "mend": "look at the source"}
    sys.stdout.buffer.write(json.dumps(said).encode() + b"\n")
    for data in parts.values():
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return 0


def limit_process(limit: int, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = MEMORY + 4 * limit
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)  # for what nothing else bounds, such as resolving names


def fetched(guard: Guard, remote: Remote, order: dict[str, Any]) -> tuple[dict[str, bytes], Sequence[str], str]:
    """The parts, the names of those that are as they were, and what to ask with the next time."""
    known, limit, ca = order["known"], order["limit"], order["ca"]
    if remote.kind == "oci":
        login = tuple(order["login"]) if order["login"] else None
        artifact = oci.pull(guard, remote, ca, limit, login, known)
        found = zip(PARTS, (artifact.module, artifact.signature, artifact.manifest), strict=True)
        parts = {name: data for name, data in found if data is not None}
        return parts, () if parts else PARTS, artifact.digest
    context = ssl.create_default_context(cafile=ca)
    module = get(guard, remote, context, limit, known)
    if module is None:
        raise FetchError("the source has no such file", "look at the URL")
    parts = {} if module.data is None else {"module": module.data}
    # They may come, go or change without the module.
    for name, url in (("signature", beside(remote, urlsplit(remote).path + ".sig")), ("manifest", beside(remote, MANIFEST))):
        file = get(guard, url, context, oci.LARGEST_PART, absent=(403, 404, 410))
        if file is not None and file.data is not None:
            parts[name] = file.data
    return parts, () if "module" in parts else ("module",), module.etag


def beside(remote: Remote, name: str) -> str:
    """The URL of another file in the same folder, asked for with the same query."""
    parts = urlsplit(remote)
    return urlunsplit((parts.scheme, parts.netloc, urljoin(parts.path, name), parts.query, ""))


if __name__ == "__main__":
    sys.exit(main())
