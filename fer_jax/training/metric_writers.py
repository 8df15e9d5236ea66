"""Where a run reports to: TensorBoard through CLU, `metrics.jsonl` and the console."""

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

from fer_jax.io_utils import write_atomically

METRICS_FILE = "metrics.jsonl"


class Writers:
    """Writes a run's numbers and pictures.

    `metrics.jsonl` gets one JSON object a line: step, epoch, kind ("train" or "eval") and the numbers. After
    a resume the lines beyond the step that the run goes on from are dropped, for they are made again.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int):
        self._path = workdir / METRICS_FILE
        kept = [r for r in read_records(workdir) if r["step"] <= start_step]
        write_atomically(self._path, "".join(json.dumps(record) + "\n" for record in kept).encode())
        self._events = _event_writer(workdir / "tensorboard")

    def scalars(self, step: int, epoch: float, kind: str, values: dict[str, float]) -> None:
        """Numbers of one kind ("train" or "eval") at `step`."""
        record = {"step": step, "epoch": round(epoch, 4), "kind": kind, **values}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._events:
            self._events.write_scalars(step, {f"{kind}/{name}": v for name, v in values.items()})

    def image(self, step: int, name: str, draw: Callable[[], np.ndarray]) -> None:
        """The picture uint8 [H, W, C] that `draw` makes, for TensorBoard; not called without it."""
        if self._events:
            self._events.write_images(step, {name: draw()[None]})

    def hparams(self, values: dict[str, Any]) -> None:
        """The run's hyper-parameters, flat, for TensorBoard's table."""
        if self._events:
            plain = (bool, int, float, str)
            self._events.write_hparams({k: v if isinstance(v, plain) else str(v) for k, v in values.items()})

    def flush(self) -> None:
        if self._events:
            self._events.flush()


def _event_writer(directory: pathlib.Path):
    """CLU's TensorBoard writer, or None where TensorFlow is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
        from clu import metric_writers
    except ImportError as error:
        logging.warning("no TensorBoard files: %s. metrics.jsonl has all numbers.", error)
        return None
    tf.config.set_visible_devices([], "GPU")  # or TensorFlow takes the GPU's memory from JAX
    return metric_writers.SummaryWriter(str(directory))


def parameter_overview(params: Any) -> str:
    """A table of the parameters' names, shapes and statistics; only their number where CLU is missing."""
    try:
        from clu import parameter_overview as overview
    except ImportError:
        return f"{sum(p.size for p in jax.tree.leaves(params)):,} in all"
    return overview.get_parameter_overview(params)


def read_records(workdir: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The records of a run's `metrics.jsonl`; none without it, and none after a line that a kill cut off."""
    try:
        lines = (pathlib.Path(workdir) / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def progress_bar(total: int, done: int, shown: bool = True) -> tqdm:
    """A bar over steps with ETA; written seldom where the output is a file rather than a terminal."""
    quiet = not sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        unit="step",
        disable=not shown,
        dynamic_ncols=not quiet,
        mininterval=30.0 if quiet else 0.2,
        smoothing=0.05,
    )
