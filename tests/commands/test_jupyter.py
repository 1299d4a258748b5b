"""What `flowlab lab` tells Jupyter: its extension is found and loads, and kernels answer without delay."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import flowlab
from flowlab.commands.jupyter import prompt


@pytest.mark.slow
def test_the_server_finds_the_extension(tmp_path):
    places = {f"JUPYTER_{what}": str(tmp_path / what) for what in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")}
    environment = {
        **os.environ,
        **places,
        "JUPYTER_CONFIG_PATH": str(Path(flowlab.__file__).parent / "commands" / "jupyter"),
    }
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.port=0"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={tmp_path}"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        said = []
        for line in server.stderr:
            said.append(line)
            if (
                "flowlab.commands.jupyter.prompt | extension" in line and "link" not in line
            ) or "is running at" in line:
                break
        server.terminate()
    assert "successfully loaded" in said[-1], "".join(said)


def test_messages_of_a_kernel_are_not_held_back():
    """Whatever class connects kernels, of this server or of a gateway: first the socket, then all that it does."""
    calls = []

    class Connection:
        websocket_handler = SimpleNamespace(
            set_nodelay=lambda value: calls.append(("nodelay", value)), ws_connection="one"
        )

        def connect(self):
            calls.append("connect")
            return "a future"

    app = SimpleNamespace(web_app=SimpleNamespace(settings={"kernel_websocket_connection_class": Connection}))
    prompt._load_jupyter_server_extension(app)
    made = app.web_app.settings["kernel_websocket_connection_class"]()
    assert isinstance(made, Connection) and made.connect() == "a future"
    assert calls == [("nodelay", True), "connect"]
    made.websocket_handler.ws_connection = None
    assert made.connect() == "a future" and calls[2:] == ["connect"]
