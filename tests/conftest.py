"""What every test obeys: one thread, no network beyond this machine, and draws that repeat."""

import os
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")  # kernels and subprocesses inherit it

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# `pytest --hypothesis-profile=explore` draws anew on each run, and more; the default draws the same every time.
common = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", derandomize=True, max_examples=10, **common)
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
