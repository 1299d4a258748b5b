import gzip
import hashlib
import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from make_mnist_sample import A_CLASS, make_sample

from flowlab.datasets import mnist

HTML = b"\n<!DOCTYPE html><html><body>Sign in to the network</body></html>"
FULL = Path(os.environ.get("FLOWLAB_DATA", "")) / "mnist"  # before any test moves it
DOWNLOAD = mnist._download
needs_full = pytest.mark.skipif(
    not os.environ.get("FLOWLAB_DATA") or not FULL.is_dir(), reason="FLOWLAB_DATA names no folder with mnist in it"
)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A tiny MNIST in place of the real one: name -> uncompressed bytes. No data folder, an empty cache, no mirror."""
    random = np.random.default_rng(0)
    files = {}
    for prefix, n in (("train", 12), ("t10k", 5)):
        files[f"{prefix}-images-idx3-ubyte"] = idx(random.integers(0, 256, (n, 28, 28)))
        files[f"{prefix}-labels-idx1-ubyte"] = idx(random.integers(0, 10, n))
    hashes = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    monkeypatch.setattr(mnist, "FILES", hashes)
    monkeypatch.setattr(mnist, "_cache_folder", lambda: tmp_path / "cache" / "mnist")
    monkeypatch.setattr(mnist, "_download", unreachable)
    monkeypatch.delenv("FLOWLAB_DATA", raising=False)
    return files


@pytest.fixture
def real_download(small, monkeypatch):
    monkeypatch.setattr(mnist, "_download", DOWNLOAD)


def unreachable(url, path, progress):
    raise ConnectionError(f"Name or service not known: {url}")


def put(folder, files, compress=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = folder / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(data) if compress else data)
    return folder


def contents(folder):
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def is_train(loaded, files):
    images, labels = loaded
    assert (images.shape, images.dtype) == ((12, 28, 28), torch.uint8)
    assert (labels.shape, labels.dtype) == ((12,), torch.int64)
    assert images.numpy().tobytes() == files["train-images-idx3-ubyte"][16:]
    assert labels.tolist() == list(files["train-labels-idx1-ubyte"][8:])
    return True


# The sample inside the package


@pytest.mark.parametrize("split", ["train", "test"])
def test_sample_is_stratified(split, monkeypatch):
    monkeypatch.setenv("FLOWLAB_DATA", "/nowhere")
    monkeypatch.setattr(mnist, "_obtain", None)  # the full files are not asked for
    images, labels = mnist.digits(split)
    assert (images.shape, images.dtype) == ((10 * A_CLASS[split], 28, 28), torch.uint8)
    assert (labels.shape, labels.dtype) == ((10 * A_CLASS[split],), torch.int64)
    assert labels.bincount().tolist() == [A_CLASS[split]] * 10
    assert len(images.flatten(1).unique(dim=0)) == len(images)
    assert 0.12 < images.float().mean() / 255 < 0.14  # MNIST's mean is 0.1307
    images[0] = 0  # a copy of one's own: the next call has the digit again
    assert mnist.digits(split)[0][0].any()


def test_sample_can_be_read_by_its_labels():
    """The nearest of ten mean images names most test digits, so labels and images belong together."""
    x, labels = mnist.digits()
    means = torch.stack([x[labels == digit].float().mean(0).flatten() for digit in range(10)])
    x, labels = mnist.digits("test")
    nearest = torch.cdist(x.float().flatten(1), means).argmin(-1)
    assert (nearest == labels).float().mean() > 0.75


def test_sample_is_small_and_carries_its_notice():
    folder = Path(mnist.__file__).parent
    assert (folder / "mnist_sample.npz").stat().st_size < 1_100_000
    notice = (folder / "mnist_sample.txt").read_text()
    for words in ("LeCun", "Cortes", "Burges", "NIST", "Attribution-ShareAlike 3.0"):
        assert words in notice


@needs_full
def test_sample_is_what_its_script_makes_of_the_full_files():
    with np.load(Path(mnist.__file__).with_name("mnist_sample.npz"), allow_pickle=False) as bundled:
        made = make_sample()
        assert set(bundled) == set(made)
        for key, array in made.items():
            np.testing.assert_array_equal(bundled[key], array)
        for split in ("train", "test"):
            images, labels = mnist.load(split)
            x, k = mnist.digits(split)
            rows = torch.from_numpy(bundled[f"{split}_rows"].astype(np.int64))
            assert torch.equal(images[rows], x) and torch.equal(labels[rows], k)


@needs_full
def test_full_files_are_read_whole():
    images, labels = mnist.load("train", source=FULL)
    assert images.shape == (60_000, 28, 28)
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert images.double().mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    images, labels = mnist.load("test", source=FULL)
    assert images.shape == (10_000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]


# Where the full files come from


@pytest.mark.parametrize("compress", [True, False])
def test_data_folder_is_read_gzipped_or_not(small, tmp_path, monkeypatch, compress):
    put(tmp_path / "data" / "mnist", small, compress)
    monkeypatch.setenv("FLOWLAB_DATA", str(tmp_path / "data"))
    assert is_train(mnist.load(), small)
    assert mnist.load("test")[0].shape == (5, 28, 28)
    assert contents(tmp_path / "cache") == []


def dotted(files):
    return {name.replace("-idx", ".idx"): data for name, data in files.items()}


PLACES = {
    "mnist": lambda data, files: put(data / "mnist", files),
    "the folder itself": lambda data, files: put(data, files),
    "torchvision's": lambda data, files: put(data / "MNIST" / "raw", files, compress=False),
    "torchvision's, packed too": lambda data, files: put(put(data / "MNIST" / "raw", files), files, compress=False),
    "torchvision's root called mnist": lambda data, files: put(data / "mnist" / "MNIST" / "raw", files),
    "dotted names": lambda data, files: put(data / "mnist", dotted(files), compress=False),
    "dotted names, packed": lambda data, files: put(data / "mnist", dotted(files)),
}


@pytest.mark.parametrize("place", PLACES)
def test_files_are_found_where_people_have_them(small, tmp_path, monkeypatch, place):
    PLACES[place](tmp_path / "data", small)
    monkeypatch.setenv("FLOWLAB_DATA", str(tmp_path / "data"))
    assert mnist.full_is_here() and is_train(mnist.load(), small)
    if (tmp_path / "data" / "mnist").is_dir():
        assert is_train(mnist.load(source=tmp_path / "data" / "mnist"), small)
    else:
        assert is_train(mnist.load(source=tmp_path / "data"), small)


@pytest.mark.parametrize("other", ("train-images-idx3-ubyte", "train-images.idx3-ubyte"))
def test_a_broken_file_hides_no_good_one_beside_it(small, tmp_path, monkeypatch, other):
    folder = put(tmp_path / "data" / "mnist", small)
    broken = folder / "train-images-idx3-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:-500])
    (folder / other).write_bytes(small["train-images-idx3-ubyte"])
    monkeypatch.setenv("FLOWLAB_DATA", str(tmp_path / "data"))
    assert is_train(mnist.load(), small)
    (folder / other).write_bytes(b"broken as well")
    with pytest.raises(mnist.MNISTError, match=re.escape(str(broken))):
        mnist.load()


def test_a_broken_file_in_the_cache_hides_no_good_one_and_what_is_not_ours_stays(small, tmp_path):
    cache = put(put(tmp_path / "cache" / "mnist", small), small, compress=False)
    (cache / "train-images-idx3-ubyte.gz").write_bytes(HTML)
    assert is_train(mnist.load(), small)
    theirs = put(cache / "raw", {"train-images-idx3-ubyte": b"broken"}) / "train-images-idx3-ubyte.gz"
    (cache / "train-images-idx3-ubyte").unlink()
    with pytest.warns(UserWarning, match="again"), pytest.raises(mnist.MNISTError, match="cannot be downloaded"):
        mnist.load()
    assert theirs.exists() and not (cache / "train-images-idx3-ubyte.gz").exists()


def test_source_is_read_and_nothing_else(small, tmp_path, monkeypatch):
    put(tmp_path / "data" / "mnist", small)
    monkeypatch.setenv("FLOWLAB_DATA", str(tmp_path / "data"))
    assert is_train(mnist.load(source=put(tmp_path / "mine", small, compress=False)), small)
    (tmp_path / "mine" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(mnist.MNISTError, match=r"Expected train-labels-idx1-ubyte.gz or .* in .*mine, but got neither"):
        mnist.load(source=tmp_path / "mine")


def test_data_folder_comes_before_cache_and_cache_before_mirrors(small, tmp_path, monkeypatch):
    put(tmp_path / "cache" / "mnist", small)
    assert is_train(mnist.load(), small)  # the mirrors cannot be reached
    broken = put(tmp_path / "data" / "mnist", {name: b"not it" for name in small})
    monkeypatch.setenv("FLOWLAB_DATA", str(tmp_path / "data"))
    with pytest.raises(mnist.MNISTError, match=str(broken)):
        mnist.load()
    shutil.rmtree(broken)  # a folder without the files does no harm
    assert is_train(mnist.load(), small)
    monkeypatch.setenv("FLOWLAB_DATA", "")
    assert is_train(mnist.load(), small)


def test_cache_is_the_users():
    import pooch

    assert mnist._cache_folder() == Path(pooch.os_cache("flowlab")) / "mnist"


def mirrors_that_give(answers):
    """A download that writes what each mirror has, in order: bytes, or an error to raise."""
    asked = []

    def download(url, path, progress):
        asked.append(url)
        answer = answers[[url.startswith(mirror) for mirror in mnist.MIRRORS].index(True)]
        if isinstance(answer, dict):
            answer = gzip.compress(answer[url.rsplit("/", 1)[1].removesuffix(".gz")])
        if isinstance(answer, BaseException):
            path.write_bytes(b"the first half")
            raise answer
        path.write_bytes(answer)

    return download, asked


def test_mirrors_are_tried_in_order_and_the_file_is_kept(small, tmp_path, monkeypatch):
    cut_short = gzip.compress(small["train-images-idx3-ubyte"])[:-500]
    download, asked = mirrors_that_give([ConnectionError(), HTML, cut_short, small])
    monkeypatch.setattr(mnist, "_download", download)
    assert is_train(mnist.load(progress=False), small)
    assert asked[:4] == [f"{mirror}train-images-idx3-ubyte.gz" for mirror in mnist.MIRRORS]
    kept = ["mnist", "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    assert contents(tmp_path / "cache") == kept
    monkeypatch.setattr(mnist, "_download", unreachable)
    assert is_train(mnist.load(), small)  # from the cache


def test_without_a_network_one_sentence_says_what_to_do(small, tmp_path, monkeypatch):
    with pytest.raises(mnist.MNISTError) as raised:
        mnist.load()
    message = str(raised.value)
    assert "train-images-idx3-ubyte.gz cannot be downloaded" in message and "\n" not in message
    assert message.count("failed (ConnectionError)") == len(mnist.MIRRORS) >= 3
    assert "Set FLOWLAB_DATA to a folder whose subfolder mnist holds the four IDX files" in message
    assert "flowlab.datasets.mnist.digits()" in message
    assert contents(tmp_path / "cache") == ["mnist"]
    monkeypatch.setenv("FLOWLAB_DATA", str(tmp_path / "empty"))
    with pytest.raises(mnist.MNISTError, match=r"\(now .*empty, which has no such file\)"):
        mnist.load()


@pytest.mark.parametrize("answer", [HTML, b"", b"\x1f\x8b half a header", KeyboardInterrupt()], ids=repr)
def test_a_broken_download_leaves_nothing(small, tmp_path, monkeypatch, answer):
    download, asked = mirrors_that_give([answer] * len(mnist.MIRRORS))
    monkeypatch.setattr(mnist, "_download", download)
    interrupted = isinstance(answer, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt if interrupted else mnist.MNISTError) as raised:
        mnist.load()
    assert contents(tmp_path / "cache") == ["mnist"]
    assert len(asked) == (1 if interrupted else len(mnist.MIRRORS))
    if answer == HTML:
        digest = mnist.FILES["train-images-idx3-ubyte"][1]
        assert f"{mnist.MIRRORS[0]} gave an HTML page instead of the file with SHA-256 {digest}" in str(raised.value)


def broken_files(data):
    gz = gzip.compress(data)
    other = bytes([data[0] ^ 1]) + data[1:]
    return {
        "a gzip file cut short at": gz[: len(gz) // 2],
        "a gzip file cut short": gz[:-4],
        "an HTML page": HTML,
        "a damaged gzip file (CRC": gz[:200] + bytes(50) + gz[250:],
        "a damaged gzip file (Error": gz[:10] + b"\xff" * 100,
        "nothing": b"",
        f"{len(data):,} uncompressed bytes with SHA-256 {hashlib.sha256(other).hexdigest()}": gzip.compress(other),
        f"{len(data) - 1:,} uncompressed bytes": data[:-1],
        f"{len(data) + 1:,} uncompressed bytes": gzip.compress(data + bytes(10**6)),  # unpacked no further than needed
    }


@pytest.mark.parametrize("case", range(9))
def test_a_broken_file_is_refused_and_left_alone(small, tmp_path, monkeypatch, case):
    name = "train-images-idx3-ubyte"
    found, content = list(broken_files(small[name]).items())[case]
    path = put(tmp_path / "data" / "mnist", small) / f"{name}.gz"
    path.write_bytes(content)
    monkeypatch.setenv("FLOWLAB_DATA", str(tmp_path / "data"))
    with pytest.raises(mnist.MNISTError) as raised:
        mnist.load()
    message = str(raised.value)
    for words in (str(path), mnist.FILES[name][1], f"but found {found}", "delete it", "flowlab data mnist"):
        assert words in message
    assert path.read_bytes() == content


def test_a_broken_file_in_the_cache_is_fetched_again(small, tmp_path, monkeypatch):
    cache = put(tmp_path / "cache" / "mnist", small)
    path = cache / "train-images-idx3-ubyte.gz"
    path.write_bytes(HTML)
    with (
        pytest.warns(UserWarning, match="found an HTML page.*again"),
        pytest.raises(mnist.MNISTError, match="Set FLOWLAB"),
    ):
        mnist.load()
    assert not path.exists()  # no network, but no broken file either
    path.write_bytes(HTML)
    monkeypatch.setattr(mnist, "_download", mirrors_that_give([small])[0])
    with pytest.warns(UserWarning, match=str(path)):
        assert is_train(mnist.load(), small)
    assert gzip.decompress(path.read_bytes()) == small["train-images-idx3-ubyte"]


def test_fetch_reports_where_each_file_came_from(small, tmp_path, monkeypatch, capsys):
    download, asked = mirrors_that_give([small])
    monkeypatch.setattr(mnist, "_download", download)
    folder = tmp_path / "new" / "folder"
    mnist.fetch(folder, progress=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(asked) == 4
    for line, name in zip(lines, small, strict=True):
        assert line == (
            f"{name}: {mnist.MIRRORS[0]}{name}.gz -> {folder / name}.gz, {len(small[name]):,} bytes, SHA-256 verified"
        )
    assert contents(folder) == sorted(f"{name}.gz" for name in small)
    reported = []
    mnist.fetch(folder, report=reported.append)
    assert len(asked) == 4 and all(str(folder) in line and mnist.MIRRORS[0] not in line for line in reported)
    mnist.fetch(report=reported.append)
    assert contents(tmp_path / "cache" / "mnist") == contents(folder)


def test_a_folder_that_cannot_be_written_says_so(small, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(mnist.MNISTError, match=r"cannot be kept in .*cache.*Set FLOWLAB_DATA"):
        mnist.load()


# The real download, from a server on this machine


@pytest.fixture
def server(small, tmp_path, monkeypatch):
    """Serves a folder at /good/, a login page at /login/, and 404 elsewhere: its address."""
    put(tmp_path / "served" / "good", small)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "served")

        def do_GET(self):
            if not self.path.startswith("/login/"):
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(HTML)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_download_passes_by_what_is_missing_or_closed(server, small, tmp_path, monkeypatch, real_download):
    closed = "http://127.0.0.1:9/"
    monkeypatch.setattr(mnist, "MIRRORS", (closed, f"{server}/missing/", f"{server}/login/", f"{server}/good/"))
    assert is_train(mnist.load(progress=False), small)
    assert contents(tmp_path / "cache" / "mnist") == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    monkeypatch.setattr(mnist, "MIRRORS", mnist.MIRRORS[:3])
    with pytest.raises(mnist.MNISTError) as raised:
        mnist.load("test", progress=False)
    for words in ("(ConnectionError)", "(HTTPError)", "gave an HTML page"):
        assert words in str(raised.value)


def test_download_shows_its_progress_if_asked(server, small, monkeypatch, capsys, real_download):
    monkeypatch.setattr(mnist, "MIRRORS", (f"{server}/good/",))
    mnist.load("train", progress=False)
    assert capsys.readouterr().err == ""
    mnist.load("test")
    assert "100%" in capsys.readouterr().err


# Small things


def test_halve_is_the_rounded_mean_of_four():
    images = mnist.digits("test")[0][:50]
    means = torch.nn.functional.avg_pool2d(images.float()[:, None], 2)[:, 0]
    halved = mnist.halve(images)
    assert (halved.shape, halved.dtype) == ((50, 14, 14), torch.uint8)
    assert torch.equal(halved.float(), (means + 0.5).floor())
    assert mnist.halve(torch.full((28, 28), 255, dtype=torch.uint8)).unique().tolist() == [255]


@pytest.mark.parametrize("read", [mnist.digits, mnist.load])
def test_another_split_is_refused(read):
    with pytest.raises(ValueError, match='"train" or "test", but got \'validation\''):
        read("validation")
