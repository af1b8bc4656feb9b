"""References in text, and text that hides itself."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.secrets import LARGEST_FILE, MASK, Secret, SecretError, holds_secret, mask, resolve


@pytest.mark.parametrize(
    ("text", "resolved", "secret"),
    [
        ("plain", "plain", False),
        ("${env:A}", "one", True),
        ("x${env:A}y${env:B}", "xoney", True),
        ("$${env:A}", "${env:A}", False),
        ("$$${env:A}", "$${env:A}", False),
        ("${A} ${other:A} $A {env:A}", "${A} ${other:A} $A {env:A}", False),
        ("${env:NESTED}", "${env:A}", True),
    ],
)
def test_references(text: str, resolved: str, secret: bool, tmp_path: Path) -> None:
    result = resolve(text, tmp_path, {"A": "one", "B": "", "NESTED": "${env:A}"}, template=True)
    assert (result, isinstance(result, Secret)) == (resolved, secret)


def test_a_file_is_read_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"two\nlines\n\n")
    assert resolve("${file:token}", tmp_path, {}) == "two\nlines\n"
    assert resolve(f"${{file:{tmp_path / 'token'}}}", Path("elsewhere"), {}) == "two\nlines\n"


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (LARGEST_FILE + 1))
    with pytest.raises(SecretError, match="larger than 1 MiB"):
        resolve("${file:large}", tmp_path, {})


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_variable_arrives_as_it_is_and_is_not_expanded_again(value: str) -> None:
    assert resolve("${env:A}", Path(), {"A": value}) == value


@given(st.text(), st.booleans())
def test_any_text_is_resolved_or_refused(text: str, template: bool) -> None:
    try:
        resolved, problem = resolve(text, Path("/nonexistent"), {}, template=template), ""
    except SecretError as error:
        resolved, problem = "", error.problem
    assert problem or isinstance(resolved, Secret) or resolved == text.replace("$${", "${")


def test_a_secret_hides_in_repr_and_keeps_doing_so_when_copied() -> None:
    for secret in (Secret("hunter2"), pickle.loads(pickle.dumps(Secret("hunter2")))):
        assert (repr(secret), f"{secret!r}", repr([secret])) == (f"'{MASK}'", f"'{MASK}'", f"['{MASK}']")
        assert secret == "hunter2"


def test_masking_a_tree() -> None:
    tree = {"a": [Secret("x"), "y", 1], "b": {"c": None}}
    assert holds_secret(tree)
    assert mask(tree) == {"a": [MASK, "y", 1], "b": {"c": None}}
    assert not holds_secret(mask(tree))
