"""store.files: what is put in a file's place is there as a whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.files import replace_file


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_made_or_replaced_whole(tmp_path: Path, durable: bool) -> None:
    """New or not; what was there keeps its mode, and nothing is left aside."""
    path = tmp_path / "note"
    replace_file(path, b"one", durable=durable)
    path.chmod(0o600)
    replace_file(path, b"two", durable=durable)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old content stays, and nothing is left aside."""
    path = tmp_path / "note"
    replace_file(path, b"one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("store.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]
