"""Names in a config that must be unique, or must name something.

It reads the plain values, not the models: these errors are reported together with all others, in whatever state the
rest of the config is.
"""

from collections.abc import Iterator
from difflib import get_close_matches

from proxy.config.problem import KeyPath, show
from proxy.config.secrets import Secret
from proxy.config.yaml import Document


def check(document: Document, tree: object, directory_filters: list[str]) -> None:
    """Report duplicate names and addresses, and references to clusters and filters that do not exist."""
    if not isinstance(tree, dict):
        return
    clusters = check_unique(document, tree, "clusters", "name")
    filters = check_unique(document, tree, "filters", "name") | set(directory_filters)
    check_unique(document, tree, "routes", "name")
    check_unique(document, tree, "trusted_keys", "name")
    addresses = check_unique(document, tree, "listeners", "address")
    admin = tree.get("admin")
    address = admin.get("address") if isinstance(admin, dict) else None
    if isinstance(address, str) and address in addresses and not address.endswith(":0"):
        document.report(("admin", "address"), f"{show(address)} is a listener's address too", "write another port")
    for path, route in items(tree, "routes"):
        check_name(document, (*path, "cluster"), route.get("cluster"), "cluster", clusters)
        names = route.get("filters")
        for name in names if isinstance(names, dict) else ():
            check_name(document, (*path, "filters", name), name, "filter", filters)
    for path, entry in items(tree, "filters"):
        check_capabilities(document, path, entry, clusters)


def check_capabilities(document: Document, path: KeyPath, entry: dict[str, object], clusters: set[str]) -> None:
    """`path` leads to the filter in its document: () in a filter's own file."""
    capabilities = entry.get("capabilities")
    hosts = capabilities.get("allowed_hosts") if isinstance(capabilities, dict) else None
    for index, host in enumerate(hosts if isinstance(hosts, list) else ()):
        if isinstance(host, str) and host.startswith("cluster:"):
            place = (*path, "capabilities", "allowed_hosts", index)
            name = host.removeprefix("cluster:")
            name = Secret(name) if isinstance(host, Secret) else name
            check_name(document, place, name, "cluster", clusters, "cluster:")


def items(tree: dict[str, object], section: str) -> Iterator[tuple[KeyPath, dict[str, object]]]:
    listed = tree.get(section)
    for index, item in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(item, dict):
            yield (section, index), item


def check_unique(document: Document, tree: dict[str, object], section: str, key: str) -> set[str]:
    """The values of the key in all items of the section."""
    seen: dict[str, KeyPath] = {}
    for path, item in items(tree, section):
        value = item.get(key)
        if not isinstance(value, str) or (key == "address" and value.endswith(":0")):
            continue
        if value in seen:
            first = document.line((*seen[value], key))
            problem = f"{show(value)} is taken (first on line {first})"
            document.report((*path, key), problem, f"write another {key}")
        seen.setdefault(value, path)
    return set(seen)


def check_name(document: Document, path: KeyPath, name: object, kind: str, known: set[str], before: str = "") -> None:
    if not isinstance(name, str) or name in known:
        return
    if near := get_close_matches(name, sorted(known), 1):
        mend = f"write {before}{bare(near[0])}"
    elif known:
        mend = f"write {' or '.join(before + bare(name) for name in sorted(known))}"
    else:
        mend = f"add it under {kind}s:"
    document.report_unless_known(path, f"there is no {kind} {show(name)}", mend)


def bare(name: str) -> str:
    """The name as an error may show it, without quotes."""
    return show(name).strip('"')
