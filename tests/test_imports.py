"""The direction of imports (docs/architecture.md), and that each module stands on its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROXY = Path(__file__).parents[1] / "proxy"
FLOORS = [
    {"cli", "admin"},
    {"server", "kit"},
    {"chain"},
    {"abi"},
    {"wasm", "upstream", "capabilities", "sharing", "sources"},
    {"children", "demo", "http1"},
    {"config", "telemetry"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
MODULES = sorted(PROXY.rglob("*.py"))

OUTSIDE = {
    "wasmtime": {"wasm", "abi", "kit"},
    "cffi": {"wasm", "sharing"},
    "aiohttp": {"server", "upstream", "admin", "demo"},
    "lmdb": {"sharing"},
    "grpc": {"upstream"},
    "pydantic": {"config"},
    "prometheus_client": {"telemetry", "cli"},
    "click": {"cli"},
    "opentelemetry": {"telemetry"},
}
"""Where a library may be touched."""


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def folder(path: Path) -> str:
    return path.relative_to(PROXY).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROXY)))
def test_imports_point_down(path: Path) -> None:
    own = folder(path)
    if own in ("__init__", "__main__"):
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "proxy" and len(parts) > 1:
            assert FLOOR[parts[1]] > FLOOR[own] or parts[1] == own or FLOOR[parts[1]] == FLOOR[own], f"{own} imports {name}"
        elif parts[0] in OUTSIDE:
            assert own in OUTSIDE[parts[0]], f"{own} touches {name}"


def test_every_module_imports_alone() -> None:
    """No module needs another to have been imported before it."""
    names = [
        ".".join(path.relative_to(PROXY.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if path.name not in ("__main__.py", "compiler.py")
    ]
    # The lowest floor imports nothing from above: with its own modules tried, it may stay for the others. It takes long.
    script = (
        f"import importlib, sys\nBOTTOM = {tuple(f'proxy.{name}' for name in sorted(FLOORS[-1]))}\n"
        "for name in sys.argv[1:]:\n"
        "    kept = () if name.startswith(BOTTOM) else BOTTOM\n"
        "    for known in list(sys.modules):\n"
        "        if known.split('.')[0] == 'proxy' and not known.startswith(kept): del sys.modules[known]\n"
        "    importlib.import_module(name)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
