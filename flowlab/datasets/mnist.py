"""MNIST: 70,000 real handwritten digits of 28×28 pixels, and a sample of 6,000 of them that needs no network.

``digits`` reads the sample inside the package. ``load`` reads the four standard IDX files, from the folder
``$FLOWLAB_DATA/mnist``, else the user's cache, else a public mirror. The folder may also be torchvision's, with the
files in ``MNIST/raw``, and their names may have a dot, as unpacked ones do: ``train-images.idx3-ubyte``. Wherever they
come from, their uncompressed bytes must have the SHA-256 in ``FILES``.

LeCun, Cortes, Burges: The MNIST database of handwritten digits; the sample's notice is in ``mnist_sample.txt``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# name: (bytes when uncompressed, their SHA-256)
FILES = {
    "train-images-idx3-ubyte": (47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://azureopendatastorage.blob.core.windows.net/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
SPLITS = {"train": "train", "test": "t10k"}


class MNISTError(OSError):
    """A file of MNIST cannot be had, or is not what it should be."""


def digits(split: str = "train") -> tuple[Tensor, Tensor]:
    """The sample inside the package: images (N, 28, 28) uint8 and labels (N,) int64, in the order of the full files.

    500 training images of each digit (N = 5,000), or 100 test images of each (N = 1,000), each from its own split.
    Reads no other file, no environment variable and no network. Raises ValueError for another split.
    """
    _check_split(split)
    file = resources.files("flowlab.datasets") / "mnist_sample.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as sample:
        return torch.from_numpy(sample[f"{split}_images"]), torch.from_numpy(sample[f"{split}_labels"]).long()


def load(
    split: str = "train", *, source: str | os.PathLike[str] | None = None, progress: bool = True
) -> tuple[Tensor, Tensor]:
    """All of a split: images (N, 28, 28) uint8 and labels (N,) int64, with N = 60,000 for "train", 10,000 for "test".

    The files (gzipped or not) are read from the folder ``source`` and nowhere else if it is given; else from
    ``$FLOWLAB_DATA``, from the user's cache, or from a mirror into the cache. Raises MNISTError where a file cannot be
    had or is broken, ValueError for another split.
    """
    _check_split(split)
    images, labels = (
        _array(_obtain(f"{SPLITS[split]}-{kind}-ubyte", source, progress)[0]) for kind in ("images-idx3", "labels-idx1")
    )
    return images, labels.long()


def fetch(
    directory: str | os.PathLike[str] | None = None,
    *,
    progress: bool = True,
    report: Callable[[str], object] = print,
) -> None:
    """Make sure that all four files can be read, and report of each where it came from and that it is the right one.

    With a directory, what it does not hold yet is downloaded into it; without, the places of ``load`` are used. Raises
    MNISTError where a file cannot be had or is broken.
    """
    for name in FILES:
        data, origin = _obtain(name, None, progress) if directory is None else _kept(name, Path(directory), progress)
        report(f"{name}: {origin}, {len(data):,} bytes, SHA-256 verified")


def full_is_here() -> bool:
    """Whether all four files lie in ``$FLOWLAB_DATA`` or the user's cache. Looks at names only, reads nothing."""
    folders = [folder for folder in (_data_folder(), _cache_folder()) if folder]
    return all(any(_found(name, folder) for folder in folders) for name in FILES)


def halve(images: Tensor) -> Tensor:
    """Half the resolution: the mean of every 2×2 block of pixels, rounded; (..., 2H, 2W) to (..., H, W), both uint8."""
    blocks = images.long().unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # (..., H, 2, W, 2)
    return ((blocks.sum((-1, -3)) + 2) // 4).to(torch.uint8)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f'MNIST expected the split "train" or "test", but got {split!r}.')


def _obtain(name: str, source: str | os.PathLike[str] | None, progress: bool) -> tuple[bytes, str]:
    """A file's verified bytes, and where they came from."""
    folder = Path(source).expanduser() if source is not None else _data_folder()
    paths = _found(name, folder) if folder else []
    if paths:
        return _first_good(paths, name)
    if source is not None:
        raise MNISTError(
            f"Expected {name}.gz or {name} in {folder}, but got neither; put one there, or leave out source."
        )
    return _kept(name, _cache_folder(), progress)


def _kept(name: str, folder: Path, progress: bool) -> tuple[bytes, str]:
    """A file's verified bytes from a folder of ours, into which it is downloaded if it is not there or broken."""
    paths = _found(name, folder)
    if paths:
        try:
            return _first_good(paths, name)
        except MNISTError as broken:
            warnings.warn(f"{broken} Trying to fetch it again now.", stacklevel=2)
            for path in paths:
                if path.parent == folder:
                    path.unlink()
    return _downloaded(name, folder, progress)


def _downloaded(name: str, folder: Path, progress: bool) -> tuple[bytes, str]:
    """A file's verified bytes from the first mirror that has them; only a verified file gets its name in the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".download-", dir=folder)
    except OSError as error:
        raise MNISTError(f"MNIST cannot be kept in {folder} ({error}). {_what_to_do()}") from error
    tried = []
    with scratch:
        path = Path(scratch.name) / f"{name}.gz"
        for mirror in MIRRORS:
            try:
                _download(f"{mirror}{name}.gz", path, progress)
                data = _unpack(path.read_bytes(), name)
            except _Broken as found:
                tried.append(f"{mirror} gave {found} instead of the file with SHA-256 {FILES[name][1]}")
            except OSError as error:  # which every error of the network is
                tried.append(f"{mirror} failed ({type(error).__name__})")
            else:
                path.replace(folder / path.name)
                return data, f"{mirror}{name}.gz -> {folder / path.name}"
    raise MNISTError(f"MNIST's {name}.gz cannot be downloaded: {'; '.join(tried)}. {_what_to_do()}")


def _download(url: str, path: Path, progress: bool) -> None:
    """The one function that uses the network."""
    import pooch  # imported where it is used, as it is not quick to import

    pooch.HTTPDownloader(progressbar=progress, timeout=20)(url, str(path), None)


def _cache_folder() -> Path:
    import pooch

    return Path(pooch.os_cache("flowlab")) / "mnist"


def _data_folder() -> Path | None:
    """``$FLOWLAB_DATA``'s folder ``mnist``, or the folder itself where only that is there."""
    folder = os.environ.get("FLOWLAB_DATA")
    if not folder:
        return None
    mnist = Path(folder).expanduser() / "mnist"
    return mnist if mnist.is_dir() else mnist.parent


def _what_to_do() -> str:
    folder = os.environ.get("FLOWLAB_DATA")
    where = f" (now {folder}, which has no such file)" if folder else ""
    return (
        f"Set FLOWLAB_DATA{where} to a folder whose subfolder mnist holds the four IDX files, or try again with a "
        "network; or use flowlab.datasets.mnist.digits(), 6,000 real digits that need neither."
    )


def _found(name: str, folder: Path) -> list[Path]:
    """All files in a folder, or in torchvision's below it, that go by a name: packed or not, with a dash or a dot."""
    names = [f"{one}{end}" for one in (name, name.replace("-idx", ".idx")) for end in (".gz", "")]
    folders = (folder, folder / "MNIST" / "raw", folder / "raw")
    return [path for place in folders for one in names if (path := place / one).is_file()]


class _Broken(Exception):
    """Says what was found in place of a file's bytes."""


def _unpack(raw: bytes, name: str) -> bytes:
    """The uncompressed bytes, if they are the right ones."""
    size, digest = FILES[name]
    if raw.lstrip()[:1] == b"<":
        raise _Broken("an HTML page")
    try:
        # No more than expected, and one byte to notice: a small file may unpack to more than the memory holds.
        data = gzip.GzipFile(fileobj=io.BytesIO(raw)).read(size + 1) if raw[:2] == b"\x1f\x8b" else raw
    except EOFError:
        raise _Broken(f"a gzip file cut short at {len(raw):,} bytes") from None
    except (OSError, zlib.error) as error:
        raise _Broken(f"a damaged gzip file ({error})") from None
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise _Broken(f"{len(data):,} uncompressed bytes with SHA-256 {found}" if data else "nothing")
    return data


def _first_good(paths: list[Path], name: str) -> tuple[bytes, str]:
    """The bytes of the first file that is the right one, and its path; of none, what is wrong with the first."""
    wrong = None
    for path in paths:
        try:
            return _verified(path, name), str(path)
        except MNISTError as error:
            wrong = wrong or error
    assert wrong is not None
    raise wrong


def _verified(path: Path, name: str) -> bytes:
    try:
        return _unpack(path.read_bytes(), name)
    except _Broken as found:
        raise MNISTError(
            f"{path} is not the MNIST file that it should be: expected uncompressed bytes with SHA-256 "
            f"{FILES[name][1]}, but found {found}; delete it, and `flowlab data mnist` fetches a good one."
        ) from None


def _array(data: bytes) -> Tensor:
    """An IDX file: two bytes 0, type (8: uint8), number of axes, the axes as big-endian int32, then the numbers."""
    axes = data[3]
    shape = np.frombuffer(data, ">i4", axes, offset=4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())
