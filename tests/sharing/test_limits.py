from pathlib import Path

import pytest

from proxy.config.filter import Filter
from proxy.sharing.limits import Limits, limits_by_space


def a_filter(path: Path, vm_id: str, **limits: object) -> Filter:
    return Filter.model_construct(
        name="f",
        wasm=path,
        vm_id=vm_id,
        limits=Filter.model_fields["limits"].annotation(**limits),  # type: ignore
    )


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], {}),
        ([("", {})], {b"": Limits(4 << 20, 1024)}),
        ([("a", {"shared_data": "1KiB"}), ("b", {})], {b"a": Limits(1024, 1024), b"b": Limits()}),
        (
            [("é", {"shared_data": "1KiB", "queued_items": 9}), ("é", {"shared_data": "2KiB", "queued_items": 5})],
            {"é".encode(): Limits(2048, 9)},
        ),
    ],
)
def test_the_limits_of_a_vm_id_are_the_largest_of_its_filters(
    tmp_path: Path, filters: list[tuple[str, dict[str, object]]], expected: dict[bytes, Limits]
) -> None:
    named = [a_filter(tmp_path, vm_id, **limits) for vm_id, limits in filters]
    assert limits_by_space(named, lambda one: one.vm_id.encode()) == expected
