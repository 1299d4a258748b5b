"""An extension of Jupyter's server: messages of a kernel reach the browser at once."""

from typing import Any


def _load_jupyter_server_extension(app: Any) -> None:
    """Turn Nagle's algorithm off for the websockets of kernels.

    It holds a small message back until the one before is acknowledged, which the browser's machine may put off for
    40 ms. A move of a slider is answered by several small messages: that the kernel is busy, an echo of the move, the
    new picture, that the kernel is idle.
    """
    settings: dict[str, Any] = app.web_app.settings
    Connection: Any = settings["kernel_websocket_connection_class"]

    class PromptConnection(Connection):
        def connect(self) -> Any:
            if self.websocket_handler.ws_connection is not None:  # the browser may have gone meanwhile
                self.websocket_handler.set_nodelay(True)
            return super().connect()

    settings["kernel_websocket_connection_class"] = PromptConnection
