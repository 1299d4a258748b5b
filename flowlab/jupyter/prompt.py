"""An extension of Jupyter's server: messages of a kernel reach the browser at once."""

from typing import Any


def _load_jupyter_server_extension(app: Any) -> None:
    """Turn Nagle's algorithm off for the websockets of kernels.

    It holds a small message back until the one before is acknowledged, which a browser may put off for 40 ms. A move of
    a slider is answered by three small messages: that the kernel is busy, the new picture, that it is idle.
    """
    settings = app.web_app.settings

    class PromptConnection(settings["kernel_websocket_connection_class"]):
        def connect(self) -> Any:
            self.websocket_handler.set_nodelay(True)
            return super().connect()

    settings["kernel_websocket_connection_class"] = PromptConnection
