"""Files that appear whole or not at all, and where those go that can be made again."""

import os
import pwd
import stat
import tempfile
from pathlib import Path

import pytest

from aqr.errors import InputError
from aqr.files import cache_folder, replacing


def test_a_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in ("first", "second"):
        with replacing(path) as partial:
            partial.write_text(content)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (OSError(28, "No space left on device"), InputError, r"file: cannot be written \(No space left.*free space"),
        (KeyError("half-way"), KeyError, "half-way"),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: Exception, raised: type[Exception], words: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(raised, match=words):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written.*another folder"), replacing(tmp_path / "file" / "x"):
        pytest.fail("there is nothing to write to")


def test_the_cache_folder_is_the_stated_one_or_at_home_and_a_user_without_a_home_has_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "stated"))
    assert cache_folder() == tmp_path / "stated" / "aqr"
    for unset in ("", "relative", None):
        if unset is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_folder() == tmp_path / "home" / ".cache" / "aqr"

    temporary = without_home(tmp_path, monkeypatch)
    for _ in range(2):
        assert cache_folder() == temporary
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "stated"))
    assert cache_folder() == tmp_path / "stated" / "aqr"


def without_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a user without a home directory, which is not there yet."""

    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"aqr-{os.getuid()}"


@pytest.mark.parametrize("taken", ["open to all", "link", "file", "of another user"])
def test_a_cache_folder_that_others_prepared_is_refused(
    taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = without_home(tmp_path, monkeypatch)
    if taken == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    elif taken == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777 if taken == "open to all" else 0o755)
    if taken == "of another user":
        if os.getuid():
            pytest.skip("only root can give a folder away")
        os.chown(folder, 12345, 12345)
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        cache_folder()


def test_two_hosts_that_write_one_file_do_not_share_a_partial_one(tmp_path: Path) -> None:
    """As far as the process number goes, the two are one."""
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
