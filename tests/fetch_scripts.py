"""Fetch what slides, book and the browser tests need of others: once, before the tests, which use no network.

    python tests/fetch_scripts.py

Each file has a pinned version and a known hash, and goes to the user's cache. None is part of this repository. Where
the mirror is out of reach, but npm and its registry are not, as behind some proxies, npm fetches them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pooch
import pytest

from flowlab.publish import scripts

AXE = "axe-core@4.14.1"  # MPL-2.0; the accessibility engine that the browser tests inject
AXE_FILES = {
    f"{AXE}/LICENSE": "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e",
    f"{AXE}/axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
}
scripts.store().registry.update(AXE_FILES)


def missing(*packages: str) -> list[str]:
    """The files of these packages that are not in the cache, or are others."""
    store = scripts.store()
    files = [file for file in store.registry if file.startswith(tuple(f"{package}/" for package in packages))]
    paths = {file: Path(store.abspath) / file for file in files}
    return [
        file for file, path in paths.items() if not path.exists() or pooch.file_hash(str(path)) != store.registry[file]
    ]


def need(*packages: str) -> None:
    """Skip the test, or fail it in CI, where a package has not been fetched."""
    if absent := missing(*packages):
        what = f"{', '.join(absent)} not in the cache: run python tests/fetch_scripts.py once, with a network"
        pytest.fail(what) if os.environ.get("CI") == "true" else pytest.skip(what)


def by_npm(package: str) -> None:
    """Put the files of a package, as npm packs it, into the cache."""
    npm = shutil.which("npm")
    if npm is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([npm, "pack", package, "--pack-destination", folder], capture_output=True, text=True)
        print(done.stderr if done.returncode else f"{package} by npm", file=sys.stderr)
        for archive in Path(folder).glob("*.tgz"):
            with tarfile.open(archive) as tar:
                for file in missing(package):
                    path = Path(scripts.store().abspath) / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(tar.extractfile("package" + file.removeprefix(package)).read())


def main() -> int:
    for package in (scripts.KATEX, scripts.REVEAL, AXE):
        try:
            for file in missing(package):
                scripts.fetch(package, file.removeprefix(f"{package}/"))
        except OSError as error:
            print(error, file=sys.stderr)
            by_npm(package)
    return len(missing(scripts.KATEX, scripts.REVEAL, AXE))


if __name__ == "__main__":
    sys.exit(main())
