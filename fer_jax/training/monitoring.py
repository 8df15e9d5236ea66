"""Monitors training: metrics since the last report, non-finite losses, stop signals, and slow work."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from fer_jax.errors import ExplainedError

EXIT_PREEMPTED = 75  # sysexits' EX_TEMPFAIL: run the same command to resume


class PreemptedError(SystemExit):
    """A stop signal arrived and the state is saved; exits with EXIT_PREEMPTED."""

    def __init__(self, step: int):
        super().__init__(EXIT_PREEMPTED)
        self.step = step


class NonFiniteLossError(ExplainedError):
    """The loss, the gradient or a parameter became NaN or infinite."""


class Window:
    """The metrics of the steps since the last report.

    The metrics of a step are fetched after the next step is dispatched, so that the device never waits for
    the host; a non-finite loss is detected one step later.
    """

    def __init__(self, fetch: Callable[[Any], Any], state: dict[str, Any] | None = None):
        """
        Args:
          fetch: converts the metrics of a step to NumPy scalars, waiting for them.
          state: from `state()`, to continue a window after resuming.
        """
        self._fetch = fetch
        self._pending: tuple[int, Any] | None = None
        state = state or {"values": [], "seconds": 0.0}
        self._values: list[dict[str, float]] = list(state["values"])
        self._seconds: float = state["seconds"]
        self.start()

    def start(self) -> None:
        """Starts the clock, excluding the time since the last summary."""
        self._started = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, as JSON; call `check` first to include the last step."""
        seconds = self._seconds + time.perf_counter() - self._started
        return {"values": list(self._values), "seconds": seconds if self._values else 0.0}

    def add(self, step: int, metrics: Any) -> None:
        """Adds the metrics of `step`, and checks those of the previous step."""
        self.check()
        self._pending = (step, metrics)

    def check(self) -> None:
        """Fetches the pending metrics.

        Raises:
          NonFiniteLossError: the loss, gradient, or parameters are NaN or infinite.
        """
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        values = {name: float(value) for name, value in self._fetch(metrics).items()}
        if not np.isfinite([values[k] for k in ("loss", "grad_norm", "param_norm")]).all():
            raise NonFiniteLossError(
                f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}, parameter "
                f"norm {values['param_norm']}. The checkpoints before it are kept. Start a new work "
                "directory with a lower config.optim.learning_rate, or with config.optim.clip_norm=1"
            )
        self._values.append(values)

    def summary(self, batch_size: int, wait_seconds: float) -> dict[str, float]:
        """Returns means over the window, seconds, images per second, and share of waiting time; restarts it.

        `batch_size` is the global one, and `wait_seconds` was spent waiting for input in the window.
        """
        self.check()
        seconds = self._seconds + time.perf_counter() - self._started
        steps = len(self._values)
        names = self._values[0]
        means = {name: float(np.mean([v[name] for v in self._values])) for name in names}
        self._values, self._seconds = [], 0.0
        self.start()
        return means | {
            "seconds": seconds,
            "images_per_second": steps * batch_size / seconds,
            "input_wait": wait_seconds / seconds,
        }


class StopSignal:
    """A context in which SIGTERM and Ctrl-C set `received` instead of ending the process.

    A second Ctrl-C interrupts; signals that are ignored at the start (nohup) stay ignored. Does nothing with
    several processes, where JAX's distributed service handles SIGTERM, so that all stop at the same step.
    """

    received = False

    def __enter__(self) -> "StopSignal":
        # Python allows handlers only in the main thread.
        main = threading.current_thread() is threading.main_thread()
        handles = main and jax.process_count() == 1
        signals = (signal.SIGTERM, signal.SIGINT) if handles else ()
        heard = [number for number in signals if signal.getsignal(number) is not signal.SIG_IGN]
        self._previous: dict[int, Any] = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def _handle(self, signum: int, frame: Any) -> None:
        self.received = True
        if signum == signal.SIGINT:
            signal.signal(signum, self._previous[signum])

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def announced(work: str, every: float = 10.0) -> Iterator[None]:
    """Logs the start of some work, its progress every `every` seconds, and its duration."""
    started, ended = time.perf_counter(), threading.Event()

    def remind() -> None:
        while not ended.wait(every):
            logging.info("still %s: %.0f s", work, time.perf_counter() - started)

    logging.info("%s", work)
    thread = threading.Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    logging.info("%s took %.1f s", work, time.perf_counter() - started)
