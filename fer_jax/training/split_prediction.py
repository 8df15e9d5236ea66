"""Predicts a split during a run: processes share the work, and a stop signal ends it."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fer_jax.data.faces import LazyImages
from fer_jax.training.monitoring import StopSignal
from fer_jax.training.sharding import all_or_none, gather


class StoppedError(Exception):
    """A stop signal arrived before all images were predicted."""


def predict_split(predict: Callable[[Any], np.ndarray], images: Any, stop: StopSignal) -> np.ndarray:
    """Returns predictions float64 [N, K]; each process computes a share and receives the others.

    `predict` maps images, an object with `shape` that integer arrays index, such as `images`, to float64
    [n, K]. The signal is checked before each batch.

    Raises:
      StoppedError: with one process, a stop signal arrived.
      ValueError: as `predict`, in all processes.
    """
    count = images.shape[0]
    share = -(-count // jax.process_count())
    places = np.minimum(np.arange(share) + share * jax.process_index(), count - 1)

    def read(index: np.ndarray) -> np.ndarray:
        if stop.received:
            raise StoppedError
        return images[places[index]]

    with all_or_none():
        probs = predict(LazyImages((share, *images.shape[1:]), read))
    return gather(probs)[:count]
