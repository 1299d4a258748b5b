"""What a run shows while it lasts, and the button that stops it."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flowlab.training.history import History

Progress = Callable[[History], object]


class Bar:
    """A tqdm bar for notebooks, terminals and log files, where it is one line every ten seconds.

    It is decoration: where it cannot be drawn, or no longer, there is none, and the work goes on.
    """

    def __init__(self) -> None:
        self.bar: Any = None
        self.broken = False
        self.began, self.first = 0.0, 0

    def __call__(self, history: History) -> None:
        """Show where the run is."""
        self._try(self._show, history)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self._try(self.bar.close)

    def _try(self, draw: Callable[..., object], *given: Any) -> None:
        if self.broken:
            return
        try:
            draw(*given)
        except Exception:  # whatever it is: a console that is gone, or that knows no such sign
            self.broken = True
            if self.bar is not None:
                self.bar.disable = True  # or it would try once more when it is collected

    def _show(self, history: History) -> None:
        if self.bar is None:
            from tqdm.auto import tqdm

            self.began, self.first = time.perf_counter(), history.step - 1
            often = seconds_to_the_next_look()
            self.bar = tqdm(total=history.total, initial=self.first, unit="step", mininterval=often)
            if history.held_out:
                self.bar.write(
                    f"{history.held_out} rows are held out. The run ends when the loss there has not fallen for long, "
                    f"and keeps the weights that were best. validation=False trains on all rows.",
                    file=sys.stderr,
                )
        self.bar.update(history.step - self.bar.n)
        if history.step % 20 == 0 or history.step == history.total:
            self.bar.set_postfix_str(self._words(history), refresh=False)

    def _words(self, history: History) -> str:
        recent = history.loss[-20:]
        nats = float(sum(recent) / len(recent))
        words = f"loss {nats:.3f} nats"
        if history.whole_numbers:
            words += f", {nats / (history.whole_numbers * math.log(2)):.3f} bits/dim"
        if history.best_step is not None:
            best = history.validation[history.best_step]
            words += f", held out {best:.3f} at best, step {history.best_step}"
        if history.batch_size:
            rate = (history.step - self.first) * history.batch_size / max(time.perf_counter() - self.began, 1e-9)
            words += f", {rate:,.0f} {'images' if history.whole_numbers else 'samples'}/s"
        return words


def seconds_to_the_next_look() -> float:
    """How often a bar is drawn: for a person who watches it, or into a file."""
    return 0.2 if sys.stderr.isatty() or "ipykernel" in sys.modules else 10.0


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first interrupt into a flag, so that a step is finished or not begun; the second one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    flag = threading.Event()
    previous = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    signal.signal(signal.SIGINT, handler)
    try:
        yield flag.is_set
    finally:
        # None: whoever embeds Python has put a handler there that Python cannot put back.
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
