"""Fetch what slides, book and the browser tests take from npm: once, before the tests, which use no network.

    python tests/fetch_scripts.py

Each package has a pinned version and a known hash, and goes to the user's cache. None is part of this repository.
"""

from __future__ import annotations

import os

import pytest

from flowlab.publish.scripts import KATEX, REVEAL, Package, archive, fetch

# MPL-2.0; the accessibility engine that the browser tests inject.
AXE = Package("axe-core", "4.14.1", "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745")


def need(*packages: Package) -> None:
    """Skip the test, or fail it in CI, where a package has not been fetched."""
    missing = [package.file for package in packages if not archive(package).exists()]
    if missing:
        what = f"{', '.join(missing)} not in the cache: run python tests/fetch_scripts.py once, with a network"
        pytest.fail(what) if os.environ.get("CI") == "true" else pytest.skip(what)


if __name__ == "__main__":
    for package in (KATEX, REVEAL, AXE):
        print(fetch(package))
