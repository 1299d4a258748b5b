"""Scripts and fonts by others: downloaded once from a public mirror, checked by their hashes, kept in the cache.

``scripts.txt`` lists the files and their SHA-256; the version of a package is part of a file's name.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pooch

MIRROR = "https://cdn.jsdelivr.net/npm/"
KATEX, REVEAL = "katex@0.19.1", "reveal.js@6.0.2"


@functools.cache
def store() -> pooch.Pooch:
    """The cache, the hash of each file that may be in it, and the mirror that has what is missing."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    files = pooch.create(Path(pooch.os_cache("flowlab")) / "scripts", MIRROR)
    files.load_registry(Path(__file__).with_name("scripts.txt"))
    return files


def fetch(package: str, name: str) -> Path:
    """Where a file of a package is in the cache, downloaded the first time.

    Raises:
        OSError: when it cannot be had, or what comes has another hash; the message says what to do.
    """
    file = f"{package}/{name}"
    try:
        return Path(store().fetch(file))
    except (OSError, ValueError) as error:  # no network, or a wrong hash
        raise OSError(
            f"{file} is needed, once, and could not be downloaded from {MIRROR} ({error}). Try with a network. Or "
            f"bring the file to {store().abspath / file}: it is in the archive that 'npm pack {package}' writes."
        ) from error


def read(package: str, name: str) -> str:
    """One text file of a package, below the license that has to go with each copy."""
    license, text = (fetch(package, file).read_text(encoding="utf-8") for file in ("LICENSE", name))
    return f"/*!\n{package.replace('@', ' ')}\n\n{license}*/\n{text}"
