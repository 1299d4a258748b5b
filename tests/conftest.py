"""What every test obeys: one thread, no network beyond this machine, draws that repeat, and a tier."""

import os
import socket
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # kernels and subprocesses inherit it
os.environ["FLOWLAB_PROGRESS"] = "off"  # what the tests solve is nobody's progress

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# `pytest --hypothesis-profile=explore` draws anew on each run, and more; the default draws the same every time.
common = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", derandomize=True, max_examples=5, **common)
settings.register_profile("explore", max_examples=200, **common)
settings.load_profile("fixed")

LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Refuse to look up or connect to anything but this machine."""

    def guarded(function, host_of):
        def call(*args, **settings):
            host = host_of(*args, **settings)
            if isinstance(host, bytes):
                host = host.decode()
            if isinstance(host, str) and host and not host.startswith(LOOPBACK):
                raise OSError(f"A test may not use the network, but asked for {host}.")
            return function(*args, **settings)

        return call

    def address_host(own, address, *_):
        return address[0] if isinstance(address, tuple) else None  # a Unix socket has no host

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), address_host))
        patch.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, lambda host, *_, **__: host))
        yield


class NotebookSeconds:
    """Fails a run in which a notebook takes grossly longer than it states, by a reference measured in the same run."""

    def __init__(self, root):
        self.root, self.seconds, self.slow = root, {}, []

    def pytest_runtest_logreport(self, report):
        """Add up what nbval takes for each notebook, its kernel's start included."""
        path = self.root / report.nodeid.split("::")[0]
        if path.suffix == ".ipynb":
            self.seconds[path] = self.seconds.get(path, 0.0) + report.duration

    def pytest_sessionfinish(self, session):
        if self.seconds:
            import notebook_format

            self.slow = notebook_format.too_slow(self.seconds, notebook_format.reference())
            if self.slow:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for line in self.slow:
            terminalreporter.write_line(f"SLOW {line}", red=True)


def pytest_configure(config):
    """As a plugin, and not as hooks of this file: those would not see what lies in notebooks/."""
    if not hasattr(config, "workerinput"):  # of several processes, the first adds up what all of them report
        config.pluginmanager.register(NotebookSeconds(config.rootpath))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """A process for each core; none for single files or a choice by -k, since processes take seconds to start."""
    if config.option.keyword or all(Path(argument.split("::")[0]).is_file() for argument in config.args):
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.hookimpl(tryfirst=True)  # before -m chooses by these markers
def pytest_collection_modifyitems(items):
    """What starts a kernel or a browser is slow; other tests say so themselves."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} has another name in each process: give it one by ids=.")
        browser = "browser" in item.path.parts
        if browser:
            item.add_marker("browser")
        if browser or item.path.suffix == ".ipynb":
            item.add_marker("slow")
