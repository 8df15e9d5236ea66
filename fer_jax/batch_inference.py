"""Predicts class probabilities for all images of a split."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import scipy  # its submodules load on first use
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from fer_jax import runtime
from fer_jax.data import augment

Forward = Callable[[Any, Any, Any], jax.Array]

_CROP = 44 / 48  # side of a crop; FER2013 papers crop 48 px to 44


def _ten_crops(n: int) -> list[np.ndarray]:
    rest = 1 - _CROP
    corners = [(0, 0), (0, rest), (rest, 0), (rest, rest), (rest / 2, rest / 2)]
    crops = [augment.crop_affine(n, y, x, y + _CROP, x + _CROP) for y, x in corners]
    flip = augment.flip_affine(n)
    return crops + [augment.compose(crop, flip) for crop in crops]


# Views whose probabilities are averaged. Each is one affine map, so faces are interpolated only once.
TTA = {
    "none": lambda n: [augment.identity_affine(n)],
    "flip": lambda n: [augment.identity_affine(n), augment.flip_affine(n)],
    "tencrop": _ten_crops,
}


def compile_forward(forward: Forward, devices: Sequence[Any] | None = None) -> Forward:
    """Compiles the function of `preprocessing.make_forward`, sharding batches over this process's devices."""
    whole, split = _shardings(devices)
    options = runtime.compiler_options()
    return jax.jit(forward, in_shardings=(whole, split, split), out_shardings=split, compiler_options=options)


def predict(
    forward: Forward,
    variables: Any,
    images: Any,
    *,
    batch_size: int = 256,
    tta: str = "none",
    progress: bool = True,
    devices: Sequence[Any] | None = None,
) -> np.ndarray:
    """Predicts the class probabilities of all images, in order.

    All batches have the same size, so that one program is compiled: the last batch is padded with copies of
    the last image, whose results are dropped.

    Args:
      forward: from `compile_forward`.
      variables: the argument of `forward`, NumPy or JAX arrays.
      images: uint8 [N, H, W, C], an array or an object with `shape` that integer arrays index.
      batch_size: images per batch, rounded up to a multiple of the number of devices.
      tta: test-time augmentation, one of `TTA`: 'none'; 'flip' averages the face and its mirror image;
        'tencrop' averages crops of 44/48 of the side at the corners and the center, and their mirror images.
      progress: whether to show a progress bar.
      devices: the devices that `forward` was compiled for.

    Returns:
      float64 [N, K], rows that sum to 1.

    Raises:
      ValueError: `tta` is unknown, `batch_size` is below 1, there are no images, or results are not finite.
    """
    count = images.shape[0]
    if tta not in TTA:
        raise ValueError(f"unknown test-time augmentation {tta!r}; there are: {', '.join(TTA)}")
    if batch_size < 1:
        raise ValueError(f"the batch size is {batch_size}, expected 1 or more")
    if not count:
        raise ValueError("no images to evaluate: the split is empty")
    whole, split = _shardings(devices)
    batch_size = min(batch_size, count)
    batch_size += -batch_size % whole.num_devices
    variables = jax.device_put(variables, whole)
    views = [jax.device_put(affine, split) for affine in TTA[tta](batch_size)]

    probs: list[np.ndarray] = []
    waiting: Any = None
    starts = range(0, count, batch_size)
    for start in tqdm(starts, "predicting", unit="batch", disable=not progress):
        index = np.minimum(np.arange(start, start + batch_size), count - 1)
        batch = jax.device_put(np.ascontiguousarray(images[index]), split)
        logits = [forward(variables, batch, affine) for affine in views]
        # This batch is computed while the previous one is fetched.
        if waiting is not None:
            probs.append(_average(waiting))
        waiting = logits
    probs.append(_average(waiting))
    result = np.concatenate(probs)[:count]
    broken = ~np.isfinite(result).all(axis=1)
    if broken.any():
        raise ValueError(
            f"the model's outputs are not finite for {broken.sum()} of {count} images, first for "
            f"number {broken.argmax()}: the weights are damaged or the training diverged"
        )
    return result


def _average(logits: list[jax.Array]) -> np.ndarray:
    """Returns the mean probabilities of the views, float64 [B, K], so that rows sum to 1 in files, too."""
    return np.mean([softmax(np.asarray(view, np.float64)) for view in logits], axis=0)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities float64 [B, K] of logits float64 [B, K]; NaN where those are not finite."""
    with np.errstate(invalid="ignore"):  # infinities become NaN, which `predict` reports
        return scipy.special.softmax(logits, axis=1)


def restrict(probs: np.ndarray, classes: int) -> np.ndarray:
    """Returns the first `classes` columns of probabilities [N, K], renormalized."""
    if classes == probs.shape[1]:
        return probs
    kept = np.maximum(probs[:, :classes], np.finfo(np.float64).tiny)
    return kept / kept.sum(axis=1, keepdims=True)


def _shardings(devices: Sequence[Any] | None) -> tuple[NamedSharding, NamedSharding]:
    """Returns the shardings of replicated arrays and of arrays divided along their first axis."""
    mesh = Mesh(np.array(devices or jax.local_devices()), ("data",))
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
