"""Writes the metrics of a run to TensorBoard (through CLU), `metrics.jsonl`, and the console."""

import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from fer_jax.io_utils import read_json_lines, write_json_lines

METRICS_FILE = "metrics.jsonl"


class Writers:
    """Writes scalars and images of a run.

    `metrics.jsonl` has one JSON object per line: step, epoch, kind ("train" or "eval"), and scalars. A
    resumed run removes the lines after its first step, which it writes again.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int):
        self._path = workdir / METRICS_FILE
        write_json_lines(self._path, [r for r in read_records(workdir) if r["step"] <= start_step])
        self._events = _event_writer(workdir / "tensorboard")

    def scalars(self, step: int, epoch: float, kind: str, values: dict[str, float]) -> None:
        """Writes scalars of a kind ("train" or "eval") at `step`."""
        record = {"step": step, "epoch": round(epoch, 4), "kind": kind, **values}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._events:
            self._events.write_scalars(step, {f"{kind}/{name}": v for name, v in values.items()})

    def image(self, step: int, name: str, draw: Callable[[], np.ndarray]) -> None:
        """Writes the image uint8 [H, W, C] from `draw` to TensorBoard, if available."""
        if self._events:
            self._events.write_images(step, {name: draw()[None]})

    def hparams(self, values: dict[str, Any]) -> None:
        """Writes flat hyperparameters to TensorBoard."""
        if self._events:
            plain = (bool, int, float, str)
            self._events.write_hparams({k: v if isinstance(v, plain) else str(v) for k, v in values.items()})

    def flush(self) -> None:
        """Flushes the TensorBoard files."""
        if self._events:
            self._events.flush()


def _event_writer(directory: pathlib.Path):
    """Returns CLU's TensorBoard writer, or None if TensorFlow is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
        from clu import metric_writers
    except ImportError as error:
        logging.warning("no TensorBoard files: %s; metrics.jsonl has all metrics", error)
        return None
    tf.config.set_visible_devices([], "GPU")  # otherwise TensorFlow reserves GPU memory
    return metric_writers.SummaryWriter(str(directory))


def parameter_overview(params: Any) -> str:
    """Returns a table of the names, shapes, and statistics of parameters; without CLU, only their number."""
    try:
        from clu import parameter_overview as overview
    except ImportError:
        return f"{sum(p.size for p in jax.tree.leaves(params)):,} in all"
    return overview.get_parameter_overview(params)


def read_records(workdir: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a run's `metrics.jsonl`; none if it does not exist."""
    return read_json_lines(pathlib.Path(workdir) / METRICS_FILE)


class ProgressBar(tqdm):
    """A progress bar over steps; refreshed rarely if the output is not a terminal."""

    def __init__(self, total: int, done: int, shown: bool = True):
        quiet = not sys.stderr.isatty()
        super().__init__(
            total=total,
            initial=done,
            unit="step",
            disable=not shown,
            dynamic_ncols=not quiet,
            mininterval=30.0 if quiet else 0.2,
            smoothing=0.05,
        )

    def skip(self) -> None:
        """Counts a step without using its time for the estimate, because it included a compilation."""
        if not self.disable:
            self.initial += 1
            self.unpause()
            self.update()
