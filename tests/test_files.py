"""Files that are whole or not there, whatever happens while they are written."""

import os
from pathlib import Path

import pytest

from flowlab.files import make_ready, write_whole


def test_bytes_and_text_are_written_into_folders_that_need_not_be_there(tmp_path):
    write_whole(tmp_path / "a" / "b" / "text.json", "x ≥ 0 ○\n")
    assert (tmp_path / "a" / "b" / "text.json").read_bytes() == "x ≥ 0 ○\n".encode()
    write_whole(tmp_path / "bytes", b"\x00\r\n")
    write_whole(tmp_path / "bytes", b"\x01\r\n")
    assert (tmp_path / "bytes").read_bytes() == b"\x01\r\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "bytes", "text.json"]


@pytest.mark.parametrize("at", ("write", "rename"))
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, at):
    file, write = tmp_path / "file", Path.write_bytes
    write_whole(file, b"old")

    def half(path: Path, content: bytes) -> None:
        write(path, content[:1])
        raise OSError(28, "No space left on device")

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(*{"write": (Path, "write_bytes", half), "rename": (os, "replace", refuse)}[at])
        with pytest.raises(OSError, match=r"No space|Permission"):
            write_whole(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_a_place_is_made_ready_or_the_error_comes_before_the_work(tmp_path):
    file = tmp_path / "new" / "file"
    make_ready(file)
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]
    left, other = file.with_name(f".file.{10**9}.part"), file.with_name(f".other.{10**9}.part")  # no such process
    for part in (left, other):
        part.touch()
    make_ready(file)
    assert list((tmp_path / "new").iterdir()) == [other]
    (tmp_path / "in the way").touch()
    with pytest.raises(OSError, match="in the way"):
        make_ready(tmp_path / "in the way" / "file")
