import os
import shutil
from pathlib import Path

import pytest

from proxy.sharing import directory
from proxy.sharing.directory import PREFIX, PrivateDirectory
from tests.sharing.processes import Process


def test_it_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    made = PrivateDirectory(0, [tmp_path])
    assert made.path.parent == tmp_path
    assert made.path.stat().st_mode & 0o777 == 0o700
    (made.path / "file").write_text("x")
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_it_goes_where_there_is_room(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    large.mkdir()
    made = PrivateDirectory(0, [small, large])  # the first is not there
    assert made.path.parent == large
    made.close()
    small.mkdir()
    made = PrivateDirectory(1 << 60, [small, large])  # neither is large enough: the last
    assert made.path.parent == large
    made.close()


def test_what_a_killed_gateway_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    def die() -> None:
        left = PrivateDirectory(0, [tmp_path])
        (left.path / "0.mdb").write_bytes(b"x")
        os._exit(0)

    living = PrivateDirectory(0, [tmp_path])
    Process(die).join()
    others = [tmp_path / "another", tmp_path / (PREFIX + "file")]
    others[0].mkdir()
    others[1].write_text("x")
    assert len(list(tmp_path.iterdir())) == 4
    second = PrivateDirectory(0, [tmp_path])
    assert set(tmp_path.iterdir()) == {living.path, second.path, *others}
    second.close()
    living.close()


def test_a_child_keeps_it(tmp_path: Path) -> None:
    made = PrivateDirectory(0, [tmp_path])
    read, write = os.pipe()

    def wait() -> None:
        os.close(write)
        os.read(read, 1)

    child = Process(wait)
    os.close(made.fd)  # as if the supervisor had been killed
    directory.remove_left_behind(tmp_path)
    assert made.path.exists()
    os.close(write)
    child.join()
    directory.remove_left_behind(tmp_path)
    assert not made.path.exists()
    os.close(read)


def test_links_and_open_directories_are_not_ours(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    (tmp_path / (PREFIX + "link")).symlink_to(elsewhere)
    (tmp_path / (PREFIX + "open")).mkdir(0o755)
    directory.remove_left_behind(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_one_that_another_gateway_removed_while_it_was_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def take(fd: int) -> bool:
        taken.append(fd)
        if len(taken) == 1:
            for path in tmp_path.iterdir():
                shutil.rmtree(path)
        return True

    monkeypatch.setattr(directory, "take", take)
    made = PrivateDirectory(0, [tmp_path])
    assert made.path.exists()
    assert len(taken) == 2
    made.close()
