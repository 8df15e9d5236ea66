"""What watches over the loop: the numbers of the last steps, their finiteness, and SIGTERM."""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

EXIT_PREEMPTED = 75  # sysexits' EX_TEMPFAIL: the same command again goes on


class PreemptedError(SystemExit):
    """SIGTERM came and the state is saved; ends the process with EXIT_PREEMPTED."""

    def __init__(self, step: int):
        super().__init__(EXIT_PREEMPTED)
        self.step = step


class NonFiniteLossError(RuntimeError):
    """The loss or the gradient became NaN or infinite."""


class Window:
    """The metrics of the steps since the last report.

    Each step's numbers are fetched when the next step has been dispatched, so that the device never waits
    for the host, yet a loss that is not finite is noticed one step later.
    """

    def __init__(self, fetch: Callable[[Any], Any]):
        """
        Args:
          fetch: turns a step's metrics into NumPy scalars, waiting for them.
        """
        self._fetch = fetch
        self._pending: tuple[int, Any] | None = None
        self._restart()

    def _restart(self) -> None:
        self._values: list[dict[str, float]] = []
        self._started = time.perf_counter()

    def add(self, step: int, metrics: Any) -> None:
        """Takes the metrics of `step`, and checks those of the step before."""
        self.check()
        self._pending = (step, metrics)

    def check(self) -> None:
        """Fetches what is pending.

        Raises:
          NonFiniteLossError: its loss or gradient is NaN or infinite.
        """
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        values = {name: float(value) for name, value in self._fetch(metrics).items()}
        if not np.isfinite([values["loss"], values["grad_norm"]]).all():
            raise NonFiniteLossError(
                f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}, parameter "
                f"norm {values['param_norm']}. The checkpoints before it are kept. Start a new work "
                "directory with a lower config.optim.learning_rate or with config.optim.clip_norm=1"
            )
        self._values.append(values)

    def summary(self, batch_size: int, wait_seconds: float) -> dict[str, float]:
        """Means over the window, which starts anew, its seconds, images/s and share of time waiting for input.

        Args:
          batch_size: global.
          wait_seconds: time spent waiting for input within the window.
        """
        self.check()
        seconds = time.perf_counter() - self._started
        steps = len(self._values)
        names = self._values[0]
        means = {name: float(np.mean([v[name] for v in self._values])) for name in names}
        self._restart()
        return means | {
            "seconds": seconds,
            "images_per_second": steps * batch_size / seconds,
            "input_wait": wait_seconds / seconds,
        }


class TermSignal:
    """Within the context SIGTERM sets `received` instead of ending the process.

    Not with several processes: there JAX's distributed service takes the signal, so that all stop
    at one step.
    """

    received = False

    def __enter__(self) -> "TermSignal":
        # Python allows handlers in the main thread only.
        main = threading.current_thread() is threading.main_thread()
        self._handles = main and jax.process_count() == 1
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def _handle(self, signum: int, frame: Any) -> None:
        self.received = True

    def __exit__(self, *error: Any) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, self._previous)
