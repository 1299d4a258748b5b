"""Files that are whole or not there: each is written under a temporary name beside its place, and then renamed."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path


def write_whole(path: Path, content: bytes | str) -> None:
    """Write one file: whoever reads it, even after a kill in between, finds the old one or the new one, all of it.

    Text is UTF-8. The folder is made if need be. OSError when it cannot be done; what was there before is as it was.
    """
    temporary = _part(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_ready(*paths: Path) -> None:
    """Make the folders of these files, and sweep up what killed writers left. OSError where nothing can be written."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        for part in path.parent.iterdir():
            named = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)\.part", part.name)
            if named and not _alive(int(named[1])):
                part.unlink(missing_ok=True)
        _part(path).touch()
        _part(path).unlink()


def _part(path: Path) -> Path:
    """The name of a file that is still being written, by which process."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _alive(process: int) -> bool:
    """Whether another process of that number may still be writing."""
    if process == os.getpid():
        return False  # an earlier process of the same number, as is common in containers: this one is not writing yet
    if os.name != "posix":
        return True  # elsewhere the question itself would stop it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is someone else's
    return True
