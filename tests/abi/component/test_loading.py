"""What loads and what does not: imports, types, versions, limits; through the compiler's child process and its cache."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from wasmtime.component import Component

from proxy.abi.component import world, worlds
from proxy.abi.component.instance import Instance
from proxy.abi.component.types import Function, List, Plain, Tuple, differences
from proxy.abi.component.worlds import Export, World
from proxy.abi.component.wrap import WrapError, wrap
from proxy.abi.proxy_wasm import load
from proxy.chain.chains import FilterStartError
from proxy.config.filter import Filter
from proxy.sharing.quarantine import QuarantineBoard
from proxy.wasm.fault import GuestFault
from proxy.wasm.settings import engine_config
from tests.abi.component.wat import component
from tests.server.fakes import replies

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def prepare(folder: Path, data: bytes, **settings: Any) -> Any:
    path = folder / "f.wasm"
    path.write_bytes(data)
    return load.prepare([Filter.model_validate({"name": "f", "wasm": str(path), **settings})])


@pytest.fixture
def refused(tmp_path: Path, compiled_here: None) -> Callable[..., str]:
    """Why a file is refused before it is compiled."""

    def why(data: bytes, **settings: Any) -> str:
        with pytest.raises(load.LoadError) as caught:
            prepare(tmp_path, data, **settings)
        return str(caught.value)

    return why


def wat(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


EXPORT = f'(instance $i) (export "{world.FILTER}" (instance $i))'
WASI = f'(component (import "wasi:cli/environment@0.2.0" (instance)) {EXPORT})'


def test_refusals_say_what_to_do(refused: Any) -> None:
    assert "the component exports no filter; export penstock:filter/http-filter@0.1.0" in refused(wat("(component)"))
    assert "componentize-py with --stub-wasi" in refused(wat(WASI))
    assert "limits.functions 5" in refused(component(), limits={"functions": 5})
    assert "limits.function_body 4KiB" in refused(component({"on-log": "nop " * 5000}), limits={"function_body": 4096})
    assert "write memory: 2MiB or more" in refused(component(pages="32"), memory=1 << 20)
    shared = wat(f"(component (core module (memory 1 1 shared)) {EXPORT})")
    assert "a shared memory is declared" in refused(shared)
    assert "limits.module" in refused(component(), limits={"module": 1024})


@pytest.mark.parametrize("cut", [9, 20, 200, 1000, 3000])
def test_half_a_component(refused: Any, cut: int) -> None:
    assert refused(component()[:cut])


async def start(bench: Any, endpoint: Any, path: Path, **settings: Any) -> Any:
    return await bench(await endpoint(replies(HELLO)), filters=[{"name": "f", "wasm": str(path), **settings}])


@pytest.fixture
def starts(bench: Any, endpoint: Any, tmp_path: Path, compiled_here: None) -> Any:
    async def begin(data: bytes, **settings: Any) -> Any:
        path = tmp_path / "f.wasm"
        path.write_bytes(data)
        return await start(bench, endpoint, path, **settings)

    return begin


async def test_exports_are_compared_with_the_world(starts: Any) -> None:
    """wasmtime would find the functions by their names alone."""
    functions = dict(world.EXPORTS[world.FILTER])
    functions["on-log"] = Function((("id", Plain("u32")),))
    with pytest.raises(FilterStartError, match=r"on-log has the parameter id: u32, the world id: u64; build it with wit"):
        await starts(component(exports={world.FILTER: functions}))
    functions = {name: found for name, found in world.EXPORTS[world.FILTER].items() if name != "on-request-body"}
    with pytest.raises(FilterStartError, match="on-request-body is missing"):
        await starts(component(exports={world.FILTER: functions}))


async def test_imports_are_compared_with_the_world(starts: Any) -> None:
    """The host would read a number as the address of a string."""
    logging = world.interface("logging")
    other = {logging: {"log": Function((("level", Plain("u64")), ("message", Plain("u64"))))}}
    more = f'(import "{logging}" "log" (func (param i64 i64)))'
    with pytest.raises(FilterStartError, match="log has the parameter level: u64, the world level: enum"):
        await starts(component(more=more, imports=other))
    shell = {logging: {"shell": Function((("command", Plain("string")),))}}
    with pytest.raises(FilterStartError, match="shell does not exist"):
        await starts(component(more=f'(import "{logging}" "shell" (func (param i32 i32)))', imports=shell))


@pytest.mark.parametrize("levels", [50, 90])
async def test_types_without_end_are_refused(starts: Any, levels: int) -> None:
    """A tuple of two tuples of two ... has 2 to the power of its levels parts, in a file of a few kilobytes."""
    deep: Any = Plain("u32")
    for _ in range(levels):
        deep = List(deep)
    wide: Any = Plain("u8")
    for _ in range(min(levels, 60) // 5):
        wide = Tuple((wide, wide))
    for type_ in (deep, wide):
        functions = {**world.EXPORTS[world.FILTER], "on-log": Function((("id", type_),))}
        with pytest.raises(FilterStartError, match=r"on-log has (the parameter id|a type that is not the world's)") as caught:
            await starts(component(exports={world.FILTER: functions}))
        assert len(str(caught.value)) < 1000


def test_async_functions_are_refused() -> None:
    """They could not be called as the world's are."""
    text = f"""(component
      (core module $m (func (export "log") (param i64) (result i32) i32.const 0)
        (func (export "callback") (param i32 i32 i32) (result i32) i32.const 0))
      (core instance $m (instantiate $m))
      (func $log async (param "id" u64) (canon lift (core func $m "log") async (callback (core func $m "callback"))))
      (instance $i (export "on-log" (func $log)))
      (export "{world.FILTER}" (instance $i)))"""
    engine = wasmtime.Engine(engine_config())
    exports = Component(engine, text).type.exports(engine)
    wanted = {world.FILTER: {"on-log": Function((("id", Plain("u64")),))}}
    (difference,) = differences(engine, exports, wanted, all_of_them=True)
    assert difference == f"{world.FILTER}, on-log has a type that is not the world's (async func)"


async def test_a_start_that_fails_says_where(starts: Any) -> None:
    with pytest.raises(FilterStartError, match="metadata: trap"):
        await starts(component({"metadata": "unreachable"}))
    with pytest.raises(FilterStartError, match="metadata: fuel"):
        await starts(component({"metadata": "(loop (br 0)) unreachable"}))
    with pytest.raises(FilterStartError, match="configure: trap"):
        await starts(component({"configure": "unreachable"}))
    with pytest.raises(FilterStartError, match="instantiate: trap"):
        await starts(component(more="(func $s unreachable) (start $s)"))


async def test_only_what_is_wanted_is_called(starts: Any) -> None:
    """The others would trap."""
    trap = {name: "unreachable" for name in world.EXPORTS[world.FILTER] if name not in ("metadata", "configure")}
    gateway = await starts(component(trap, wants=0))
    head, body = await gateway.ask(GET)
    assert (head[9:12], body) == (b"200", b"hello")
    gateway = await starts(component({**trap, "on-request-headers": "(i32.const 96)"}, wants=1))
    assert (await gateway.ask(GET))[0][9:12] == b"200"


async def test_a_worker_that_starts_again_serves_without_a_filter_that_does_not_start(
    bench: Any, endpoint: Any, tmp_path: Path, compiled_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And asks it what it wants once it does: all other callbacks would trap."""
    trap = {name: "unreachable" for name in world.EXPORTS[world.FILTER] if name not in ("metadata", "configure")}
    path = tmp_path / "f.wasm"
    path.write_bytes(component({**trap, "on-request-headers": "(i32.const 96)"}, wants=1))
    monkeypatch.setattr(QuarantineBoard, "served", True, raising=False)
    calls = Instance.call
    broken = [0, 1, 1, 1]  # at the load, at the start, for the first stream

    def fails_at_first(self: Instance, name: str, *arguments: Any) -> Any:
        if name == "metadata" and broken.pop():
            raise GuestFault("trap", "not yet")
        return calls(self, name, *arguments)

    monkeypatch.setattr(Instance, "call", fails_at_first)
    gateway = await start(bench, endpoint, path)
    plugin = gateway.gateway.generation.chains.plugins[0]
    assert (await gateway.ask(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"))[0][9:12] == b"503"
    assert plugin.state()["state"] == "failed"
    async with asyncio.timeout(5):
        while plugin.state()["state"] != "ready":
            await asyncio.sleep(0.02)
    assert (await gateway.ask(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"))[0][9:12] == b"200"


@pytest.mark.parametrize("name", ["on-request-headers", "on-response-headers", "on-log"])
async def test_a_result_that_is_none_is_a_fault(starts: Any, name: str) -> None:
    """A pointer beyond the memory, or a case that the variant does not have."""
    phases = {"on-request-headers": 1, "on-response-headers": 8, "on-log": 64}
    for result in ("(i32.const -16)", "(i32.store8 (i32.const 808) (i32.const 9)) (i32.const 800)"):
        body = "unreachable" if name == "on-log" else result
        gateway = await starts(component({name: body}, wants=phases[name]))
        head, _ = await gateway.ask(GET)
        assert head[9:12] == (b"200" if name == "on-log" else b"503")
        await gateway.finished()
        await asyncio.sleep(0)
        assert gateway.gateway.telemetry.instruments.filter_failures.child(("f", "trap")).value == 1


def test_through_the_compilers_child_and_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    first = prepare(tmp_path, component())
    entries = {entry.name for entry in (tmp_path / "cache").iterdir()}
    again = prepare(tmp_path, component())
    assert first.filters[0].code == again.filters[0].code
    assert entries == {entry.name for entry in (tmp_path / "cache").iterdir()}
    for path in (tmp_path / "cache").iterdir():
        if path.is_file() and path.stat().st_size > 10_000:  # code; what else there is is the key
            damaged = bytearray(path.read_bytes())
            damaged[-100] ^= 1
            path.write_bytes(damaged)
    assert prepare(tmp_path, component()).filters[0].code == again.filters[0].code, "code that somebody changed is not run"
    loader = load.Loader(again)
    try:
        assert loader.engine.load_component(again.filters[0].code)
    finally:
        loader.close()


def test_a_module_that_is_not_for_the_world_is_not_wrapped() -> None:
    with pytest.raises(WrapError, match="does not export the function cabi_realloc"):
        wrap(wat("(module)"))
    with pytest.raises(WrapError, match="imports env exit, which the world does not have"):
        component(more='(import "env" "exit" (func))')


def test_inspect_describes_a_component() -> None:
    from proxy.abi.proxy_wasm.inspect import inspect_bytes
    from proxy.cli.inspect_report import report

    uses = f'(import "{world.interface("http-client")}" "send" (func (param {"i32 " * 10})))'
    text = report("f.wasm", inspect_bytes(component(more=uses)))
    for line in (
        "kind          component",
        "world         penstock:filter/filter@0.1.0",
        "imports (1)\n    penstock:filter/http-client@0.1.0",
        "capabilities.allowed_hosts: imports penstock:filter/http-client@0.1.0",
    ):
        assert line in text
    assert "would not load" not in text
    refused = report("f.wasm", inspect_bytes(wat(WASI)))
    assert "world         none that is served" in refused
    assert "would not load (1)\n    the component imports what is not penstock:filter/*: wasi:cli" in refused


# ---- The next version of the world, beside this one ----

NEXT = "0.2.0"


def at_next(interfaces: Any) -> dict[str, Any]:
    return {f"{name.partition('@')[0]}@{NEXT}": dict(functions) for name, functions in interfaces.items()}


async def test_two_worlds_are_served_side_by_side(
    bench: Any, endpoint: Any, tmp_path: Path, compiled_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.2 has a function of its own to import. A guest of each runs in one chain; neither can import what is the other's."""
    imports = at_next(world.IMPORTS)
    random = f"penstock:filter/random@{NEXT}"
    imports[random]["get-u32"] = Function((), Plain("u32"))
    answers = {("random", "get-u32"): lambda host: 7}
    monkeypatch.setattr(worlds, "WORLDS", [*worlds.WORLDS, World(NEXT, imports, at_next(world.EXPORTS), answers)])
    use = f'(import "{random}" "get-u32" (func $u32 (result i32)))'
    seven = "(if (i32.ne (call $u32) (i32.const 7)) (then unreachable)) (i32.const 96)"
    new = component({"on-request-headers": seven}, more=use, imports=imports, exports=at_next(world.EXPORTS))
    paths = []
    for name, data in (("old", component()), ("new", new)):
        paths.append(tmp_path / f"{name}.wasm")
        paths[-1].write_bytes(data)
    filters = [{"name": path.stem, "wasm": str(path)} for path in paths]
    gateway = await bench(await endpoint(replies(HELLO)), filters=filters)
    assert (await gateway.ask(GET))[0][9:12] == b"200"
    plugins = gateway.gateway.generation.chains.plugins
    assert [plugin.calls["on-request-headers"].value for plugin in plugins] == [1, 1]
    assert [plugin.state()["state"] for plugin in plugins] == ["ready", "ready"]
    old = {world.interface("random"): {"get-u32": Function((), Plain("u32"))}}
    paths[0].write_bytes(component(more=use.replace(NEXT, "0.1.0"), imports=old))
    with pytest.raises(FilterStartError, match="get-u32 does not exist"):
        await bench(await endpoint(replies(HELLO)), filters=filters)


async def test_a_world_with_other_callbacks(
    bench: Any, endpoint: Any, tmp_path: Path, compiled_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.2 has its callbacks otherwise: one has another name and an argument more, another a smaller result. The chain calls
    both filters in the same way, and 0.1's is not touched by it."""
    exports = at_next(world.EXPORTS)
    (filter_,) = exports
    del exports[filter_]["on-log"]
    exports[filter_]["on-end"] = Function((("id", Plain("u64")), ("status", Plain("u16"))))
    exports[filter_]["on-request-headers"] = Function(world.HEAD.params, Plain("bool"))
    changes = {
        "on-log": Export("on-end", lambda host, given: (*given, host.stream.stream.info.status), lambda none: none),
        "on-request-headers": Export(
            "on-request-headers", lambda host, given: given,
            lambda passes: ([], (world.CONTINUES, None) if passes else (world.RESPONDS, (418, [], None, b"brewing"))),
        ),
    }  # fmt: skip
    monkeypatch.setattr(worlds, "WORLDS", [*worlds.WORLDS, World(NEXT, at_next(world.IMPORTS), exports, changes=changes)])
    expected = "(if (i32.ne (local.get 1) (i32.const 418)) (then unreachable))"
    new = component({"on-request-headers": "(i32.const 0)", "on-end": expected}, wants=1 | 64, imports=at_next(world.IMPORTS),
                    exports=exports)  # fmt: skip
    filters = []
    for name, data in (("old", component(wants=1 | 64)), ("new", new)):
        path = tmp_path / f"{name}.wasm"
        path.write_bytes(data)
        filters.append({"name": name, "wasm": str(path)})
    gateway = await bench(await endpoint(replies(HELLO)), filters=filters)
    assert (await gateway.ask(GET))[0][9:12] == b"418"
    await gateway.finished()
    plugins = gateway.gateway.generation.chains.plugins
    assert [plugin.calls["on-log"].value for plugin in plugins] == [1, 1]
    assert [plugin.state()["state"] for plugin in plugins] == ["ready", "ready"]
    assert [plugin.instruments.failures("trap").value for plugin in plugins] == [0, 0]
