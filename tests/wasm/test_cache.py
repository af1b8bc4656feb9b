import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog.testing

from proxy.wasm import cache as cache_module
from proxy.wasm.cache import Cache, CacheError, CompileErrors, default_folder, entry_name, load_or_compile
from proxy.wasm.compile import CompileError, Request
from tests.wasm import binary as b

ROOT = Path(__file__).parent.parent.parent
ONE = Request(b.HEADER + b.custom("one"))
TWO = Request(b.HEADER + b.custom("two"))


@pytest.fixture
def compiled(monkeypatch) -> list[Request]:
    """What was compiled; the code of a module is its bytes, twice."""
    seen: list[Request] = []

    def compile_all(requests):
        seen.extend(requests)
        return [CompileError("bad", "mend") if b"bad" in one.wasm else one.wasm * 2 for one in requests]

    monkeypatch.setattr(cache_module, "compile_all", compile_all)
    return seen


def entry(folder: Path) -> Path:
    (found,) = folder.glob("*.code")
    return found


def test_the_second_start_compiles_nothing(tmp_path, compiled):
    folder = tmp_path / "deep" / "cache"
    first = load_or_compile([ONE, TWO], folder)
    assert compiled == [ONE, TWO]
    assert load_or_compile([TWO, ONE], folder) == first[::-1] == [TWO.wasm * 2, ONE.wasm * 2]
    assert compiled == [ONE, TWO]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_the_real_compiler_fits(tmp_path):
    wasm = b.functions([b.body()])
    code = load_or_compile([Request(wasm)], tmp_path / "cache")
    assert len(code[0]) > len(wasm)
    assert load_or_compile([Request(wasm)], tmp_path / "cache") == code


def test_fresh_compiles_again(tmp_path, compiled):
    load_or_compile([ONE], tmp_path)
    load_or_compile([ONE], tmp_path, fresh=True)
    assert compiled == [ONE, ONE]


def test_one_module_of_several_filters_is_compiled_once_by_the_wider_limits(tmp_path, compiled):
    same = [Request(ONE.wasm, 1, 500), TWO, Request(ONE.wasm, 5, 100)]
    assert load_or_compile(same, tmp_path) == [ONE.wasm * 2, TWO.wasm * 2, ONE.wasm * 2]
    assert compiled == [Request(ONE.wasm, 5, 500), TWO]


def test_failures_name_their_requests_and_the_rest_is_kept(tmp_path, compiled):
    with pytest.raises(CompileErrors) as error:
        load_or_compile([ONE, Request(b"bad"), Request(b"bad 2"), Request(b"bad")], tmp_path)
    assert set(error.value.failures) == {1, 2, 3}
    compiled.clear()
    load_or_compile([ONE], tmp_path)
    assert compiled == []


@pytest.mark.parametrize("position", [0, 15, 16, 40, 48, -1], ids=lambda one: f"byte {one}")
def test_a_flipped_byte_is_found_and_the_entry_replaced(tmp_path, compiled, position):
    load_or_compile([ONE], tmp_path)
    damaged = bytearray(entry(tmp_path).read_bytes())
    damaged[position] ^= 1
    entry(tmp_path).write_bytes(damaged)
    with structlog.testing.capture_logs() as logs:
        assert load_or_compile([ONE], tmp_path) == [ONE.wasm * 2]
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["cached module is rejected and compiled anew"]
    assert compiled == [ONE, ONE]
    load_or_compile([ONE], tmp_path)
    assert compiled == [ONE, ONE]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def open_to_others(path: Path) -> None:
    path.chmod(0o622)


@pytest.mark.parametrize("damage", [truncate, empty, link, pipe, open_to_others])
def test_what_is_not_a_sound_private_file_is_not_loaded(tmp_path, compiled, damage):
    load_or_compile([ONE], tmp_path)
    damage(entry(tmp_path))
    assert load_or_compile([ONE], tmp_path) == [ONE.wasm * 2]
    assert compiled == [ONE, ONE]


def test_an_entry_under_another_name_is_not_loaded(tmp_path, compiled):
    load_or_compile([ONE], tmp_path)
    entry(tmp_path).rename(tmp_path / entry_name(TWO.wasm))
    assert load_or_compile([TWO], tmp_path) == [TWO.wasm * 2]


def test_an_entry_of_another_key_is_not_loaded(tmp_path, compiled):
    load_or_compile([ONE], tmp_path / "a")
    load_or_compile([TWO], tmp_path / "b")
    name = entry_name(ONE.wasm)
    (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    load_or_compile([ONE], tmp_path / "b")
    assert compiled == [ONE, TWO, ONE]


@pytest.mark.parametrize("spoil", [empty, open_to_others, lambda path: path.chmod(0o640)])
def test_a_key_that_is_no_secret_is_replaced(tmp_path, compiled, spoil):
    load_or_compile([ONE], tmp_path)
    key = (tmp_path / "key").read_bytes()
    spoil(tmp_path / "key")
    load_or_compile([ONE], tmp_path)
    assert compiled == [ONE, ONE]
    assert (tmp_path / "key").read_bytes() != key
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720])
def test_a_folder_that_others_write_is_refused(tmp_path, compiled, mode):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(CacheError, match="chmod 700"):
        Cache(folder)
    with structlog.testing.capture_logs() as logs:
        assert load_or_compile([ONE, TWO], folder) == [ONE.wasm * 2, TWO.wasm * 2]
    assert [line["log_level"] for line in logs].count("warning") == 1
    assert list(folder.iterdir()) == []


def test_a_folder_of_someone_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(CacheError, match="belongs to user"):
        Cache(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below", "link", "/proc/nowhere"])
def test_where_no_folder_can_be_the_start_goes_on(tmp_path, compiled, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with structlog.testing.capture_logs() as logs:
        assert load_or_compile([ONE], tmp_path / place) == [ONE.wasm * 2]
    assert [line["log_level"] for line in logs].count("warning") == 1


def test_a_full_disk_costs_a_warning(tmp_path, compiled, monkeypatch):
    load_or_compile([ONE], tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with structlog.testing.capture_logs() as logs:
        assert load_or_compile([TWO], tmp_path) == [TWO.wasm * 2]
    assert "compiled module is not cached" in [line["event"] for line in logs]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["key", entry_name(ONE.wasm)])


def test_what_was_used_longest_ago_goes_first(tmp_path):
    with Cache(tmp_path, largest=3 * 1000) as cache:
        for age, name in enumerate(["d.code", "c.code", "b.code", "a.code"]):
            cache.put(name, bytes(800))
            os.utime(tmp_path / name, (age, age)) if (tmp_path / name).exists() else None
        assert cache.get("c.code") == bytes(800)  # which makes it the latest but one
        cache.put("e.code", bytes(800))
        assert {path.name for path in tmp_path.glob("*.code")} == {"a.code", "c.code", "e.code"}
        cache.put("f.code", bytes(9000))  # larger than all: it stays until the next one comes
        assert {path.name for path in tmp_path.glob("*.code")} == {"f.code"}


def test_leftovers_of_crashed_writers_go(tmp_path):
    old, new, other = tmp_path / ".new-old", tmp_path / ".new-now", tmp_path / "notes"
    for path in (old, new, other):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    with Cache(tmp_path) as cache:
        cache.put("a.code", b"code")
    assert (old.exists(), new.exists(), other.exists()) == (False, True, True)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PENSTOCK_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/h"}, "/a"),
        ({"PENSTOCK_CACHE": "", "XDG_CACHE_HOME": "/b", "HOME": "/h"}, "/b/penstock"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/penstock"),
        ({"HOME": "/h"}, "/h/.cache/penstock"),
    ],
)
def test_default_folder(monkeypatch, variables, expected):
    for name in ("PENSTOCK_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_folder() == Path(expected)


HAMMER = """
import sys, pathlib
from proxy.wasm.cache import Cache
folder, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
(folder / f"ready-{seed}").touch()
while not (folder / "go").exists(): pass
keys = set()
for turn in range(150):
    with Cache(folder / "cache", largest=40_000) as cache:
        keys.add(cache.key)
        name = f"{(turn * 7 + seed) % 5}.code"
        found = cache.get(name)
        assert found is None or found == name.encode() * 2000, name
        cache.put(name, name.encode() * 2000)
assert len(keys) == 1
print(keys.pop().hex())
"""


def test_processes_share_a_folder(tmp_path):
    environment = {"PYTHONPATH": str(ROOT)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, tmp_path, str(seed)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for seed in range(2)
    ]  # fmt: skip
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    results = [(child.communicate(timeout=30), child.returncode) for child in children]
    assert [code for _, code in results] == [0, 0], results
    assert len({out for (out, _), _ in results}) == 1
    assert all("rejected" not in out + error for (out, error), _ in results)
