import pytest

from proxy.abi.proxy_wasm.inspect import inspect_bytes
from proxy.abi.proxy_wasm.signatures import CALLBACKS, UNUSED_CALLBACKS
from tests.wasm import binary as b


def producers(**fields: list[tuple[str, str]]) -> bytes:
    return b.custom(
        "producers",
        b.vector(
            b.name(field.replace("_", "-")) + b.vector(b.name(tool) + b.name(version) for tool, version in tools)
            for field, tools in fields.items()
        ),
    ).replace(b"processed_by", b"processed-by")


EVERY_CALLBACK = [
    (name, *signature) for name, signature in CALLBACKS.items() if name not in UNUSED_CALLBACKS or not name.startswith("envoy_")
]


@pytest.mark.parametrize(
    ("data", "language", "sdk"),
    [
        (b.filter_module(), None, None),
        (b.filter_module() + producers(language=[("Rust", "")], processed_by=[("rustc", "1.96.0")]), "Rust", None),
        (b.filter_module() + producers(language=[("C_plus_plus_14", "")]), "C++", None),
        (b.filter_module() + producers(language=[("C11", "")], processed_by=[("clang", "19")]), "C", None),
        (b.filter_module() + producers(language=[("Go", "go1.26")]), "Go", None),
        (b.filter_module() + producers(processed_by=[("TinyGo", "0.39")], language=[("Go", "")]), "Go (TinyGo)", None),
        (b.filter_module() + producers(processed_by=[("clang", "19")]), "C or C++", None),
        (b.filter_module() + b.custom("go:buildid", b"x"), "Go", None),
        (b.filter_module() + b.custom("x", b"... QuickJS ..."), "JavaScript (QuickJS)", None),
        (b.filter_module() + b.custom("x", "~lib/rt/itcms.ts".encode("utf-16-le")), "AssemblyScript", None),
        (
            b.filter_module(exports=[(name, (), ()) for name in ("__new", "__pin", "__collect")]),
            "AssemblyScript",
            None,
        ),
        (
            b.filter_module() + b.custom("x", b"/registry/src/proxy-wasm-0.2.5/src/dispatcher.rs /rustc/0f4"),
            "Rust",
            "proxy-wasm-rust-sdk 0.2.5",
        ),
        (
            b.filter_module() + b.custom("go:buildid") + b.custom("x", b"github.com/proxy-wasm/proxy-wasm-go-sdk"),
            "Go",
            "proxy-wasm-go-sdk",
        ),
        (
            b.filter_module(exports=EVERY_CALLBACK) + producers(language=[("C_plus_plus_17", "")]),
            "C++",
            "proxy-wasm-cpp-sdk",
        ),
        (b.filter_module() + b.custom("producers", b"\xff"), None, None),
    ],
)  # fmt: skip
def test_guesses(data, language, sdk):
    found = inspect_bytes(data)
    assert (found.language, found.sdk) == (language, sdk)
