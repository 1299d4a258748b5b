"""The rules of the test run themselves: one thread, and no network beyond this machine."""

import os
import socket

import pytest
import torch


@pytest.mark.parametrize("host", ("192.0.2.1", b"192.0.2.1", "2001:db8::1", "example.org"))
def test_the_network_is_out_of_reach(host):
    name = host if isinstance(host, str) else host.decode()
    with pytest.raises(OSError, match=rf"A test may not use the network, but asked for {name}\."):
        socket.getaddrinfo(host, 80)
    with pytest.raises(OSError, match="A test may not use the network"):
        socket.create_connection((name, 80), timeout=1)
    for connect in ("connect", "connect_ex"):
        with socket.socket() as s, pytest.raises(OSError, match="A test may not use the network"):
            getattr(s, connect)((name, 80))


def test_this_machine_is_within_reach():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()


def test_one_thread():
    assert torch.get_num_threads() == 1 and os.environ["OMP_NUM_THREADS"]
