"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): where in a face the evidence for a class lies."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fer_jax import batch_inference, preprocessing, runtime
from fer_jax.data import augment
from fer_jax.models.layers import FeatureMap


def make_grad_cam(
    model: nn.Module,
    compiler_options: Mapping[str, str] | None = None,
    *,
    num_classes: int | None = None,
) -> Callable[[Any, jax.Array, jax.Array | None], tuple[jax.Array, jax.Array]]:
    """A function that finds the evidence for one class a face.

    The gradient of the class's logit with respect to the last spatial features (`FeatureMap`), averaged
    over space, weighs their channels; what is positive of the weighted sum is the map.

    grad_cam(variables, x float32 [B, S, S, C] normalised as `preprocessing.normalize` does, classes int [B],
    or None for those of the highest logit) -> logits float32 [B, K] and maps float32 [B, h, w], at least 0:
    h * w times the paper's, so that with a linear head on the features' mean they are the class activation
    maps of Zhou et al. 2016 (arXiv:1512.04150).

    Args:
      model: any of `models.MODELS`.
      compiler_options: for `jax.jit`.
      num_classes: logits of the first so many classes are looked at; None for all.
    """

    def apply(variables, x, instead=None):
        """Logits, and the features before; `instead` takes their place for what follows."""
        seen = []

        def intercept(next_call, args, kwargs, context):
            if not isinstance(context.module, FeatureMap):
                return next_call(*args, **kwargs)
            seen.append(args[0])
            return next_call(args[0] if instead is None else instead)

        with nn.intercept_methods(intercept):
            logits = model.apply(variables, x, train=False)
        (features,) = seen
        return logits, features

    def evidence(variables, x, features, classes):
        def score(features):
            logits = apply(variables, x, features)[0][:, :num_classes]
            chosen = jnp.argmax(logits, axis=1) if classes is None else classes
            return jnp.take_along_axis(logits, chosen[:, None], axis=1).sum(), logits

        gradient, logits = jax.grad(score, has_aux=True)(features)
        weights = gradient.astype(jnp.float32).sum(axis=(1, 2), keepdims=True)
        return logits, jax.nn.relu((weights * features).sum(axis=-1))

    # Two programs. In one the compiler may compute the features anew, rounded otherwise, where the gradient
    # of a maximum looks for the largest. What lies before the features drops out of the second.
    options = dict(compiler_options or {})
    first = jax.jit(lambda variables, x: apply(variables, x)[1], compiler_options=options)
    second = jax.jit(evidence, compiler_options=options)

    def grad_cam(variables, x, classes=None):
        return second(variables, x, first(variables, x), classes)

    return grad_cam


class Explainer:
    """Finds the Grad-CAM of the class that each face is taken for; compiles once for each batch size."""

    def __init__(self, model: nn.Module, normalization: dict[str, Any], *, num_classes: int | None = None):
        """Prepares; nothing is compiled yet.

        Args:
          model: any of `models.MODELS`.
          normalization: the arguments of `preprocessing.make_forward` besides the model.
          num_classes: the first so many are told apart; None for all.
        """
        self._prepare = jax.jit(preprocessing.make_input(**normalization))
        self._grad_cam = make_grad_cam(model, runtime.compiler_options(), num_classes=num_classes)

    def __call__(
        self, variables: Any, images: Any, batch_size: int, progress: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """See `explain`; a last batch that is smaller is filled up."""
        count = images.shape[0]
        variables, whole = jax.device_put(variables), augment.identity_affine(batch_size)
        logits, maps = [], []
        for start in tqdm(range(0, count, batch_size), "explaining", unit="batch", disable=not progress):
            index = np.minimum(np.arange(start, start + batch_size), count - 1)
            found = self._grad_cam(variables, self._prepare(images[index], whole))
            for results, values in zip((logits, maps), found, strict=True):
                results.append(np.asarray(values))
        logits, maps = np.concatenate(logits)[:count], np.concatenate(maps)[:count]
        return batch_inference.softmax(logits.astype(np.float64)), maps


def explain(
    model: nn.Module,
    variables: Any,
    images: Any,
    normalization: dict[str, Any],
    *,
    num_classes: int | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of all faces and the Grad-CAM of the class that each is taken for.

    Args:
      model: any of `models.MODELS`.
      variables: {"params", "batch_stats"}.
      images: uint8 [N, H, W, C], an array or an object with `shape` that integer arrays index.
      normalization: the arguments of `preprocessing.make_forward` besides the model.
      num_classes: the first so many are told apart; None for all.
      batch_size: faces at a time.
      progress: whether to show a progress bar.

    Returns:
      Probabilities float64 [N, num_classes] and maps float32 [N, h, w], at least 0.

    Raises:
      ValueError: no images, or a batch size below 1.
    """
    count = images.shape[0]
    if not count:
        raise ValueError("no images to explain: the split is empty")
    if batch_size < 1:
        raise ValueError(f"the batch size is {batch_size}, expected 1 or more")
    explainer = Explainer(model, normalization, num_classes=num_classes)
    return explainer(variables, images, min(batch_size, count), progress)
