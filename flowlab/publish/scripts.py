"""Scripts and fonts by others: taken from npm at a pinned version, checked against a known hash, kept in the cache."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One version of an npm package, and the SHA-256 of its archive."""

    name: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """The name of its archive."""
        return f"{self.name}-{self.version}.tgz"


KATEX = Package("katex", "0.19.1", "24da5a599eb2fcede2e270b99a6ff48bca816beecc95feeb84e8cccbd1bb34fd")  # MIT
REVEAL = Package("reveal.js", "6.0.2", "2f0c20bfb02447a198a1ebe8a8c097a5437d035caa38f2820bf4ba887a3eac91")  # MIT


def archive(package: Package) -> Path:
    """Where the archive of a package is, or will be."""
    import pooch

    return Path(pooch.os_cache("flowlab")) / "scripts" / package.file


def fetch(package: Package) -> Path:
    """The archive of a package, downloaded by npm the first time; OSError when it cannot be had, or is another."""
    path = archive(package)
    if not path.exists():
        _download(package, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != package.sha256:
        raise OSError(
            f"{path} is not {package.name} {package.version} (its SHA-256 is {found}). Delete it, and try again."
        )
    return path


def _download(package: Package, path: Path) -> None:
    """Ask npm, which knows its registry, for the archive; a broken download leaves no trace in the cache."""
    name = f"{package.name}@{package.version}"
    needed = f"{name} is needed, once, and npm"
    by_hand = f"Or bring {package.file}, which 'npm pack {name}' writes on any computer, into {path.parent}."
    npm = shutil.which("npm")
    if npm is None:
        raise OSError(
            f"{name} is needed, once, and npm, which fetches it, is not installed. Install Node.js. {by_hand}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        asked = subprocess.run([npm, "pack", name, "--pack-destination", folder], capture_output=True, text=True)
        if asked.returncode:
            said = "\n".join(asked.stderr.splitlines()[-3:])
            raise OSError(f"{needed} could not fetch it:\n{said}\nTry with a network. {by_hand}")
        os.replace(Path(folder) / package.file, path)


@functools.cache
def files(package: Package) -> dict[str, bytes]:
    """The files of a package by path, as ``dist/katex.min.js``. Nothing is unpacked to disk."""
    with tarfile.open(fetch(package)) as tar:
        members = [member for member in tar if member.isfile()]
        return {member.name.removeprefix("package/"): tar.extractfile(member).read() for member in members}


def read(package: Package, name: str) -> str:
    """One text file of a package, below the license that has to go with each copy."""
    license = files(package)["LICENSE"].decode()
    return f"/*!\n{package.name} {package.version}\n\n{license}*/\n{files(package)[name].decode()}"
