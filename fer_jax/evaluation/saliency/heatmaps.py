"""Computes Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): where a face supports a class."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fer_jax import batch_inference, runtime
from fer_jax.data import augment, preprocessing
from fer_jax.models.layers import FeatureMap
from fer_jax.pretrained.loaded_model import LoadedModel


def make_grad_cam(
    model: nn.Module, compiler_options: dict[str, str], num_classes: int | None = None
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Returns a function that computes a heatmap of the evidence for a class of each face.

    The channels of the last spatial features (`FeatureMap`) are weighted by the gradient of the class's
    logit, averaged over space; the heatmap is the positive part of the weighted sum.

    grad_cam(variables, x float32 [B, S, S, C] normalized by `preprocessing.normalize`, classes int [B], or
    None for the predicted classes) -> logits float32 [B, K] and heatmaps float32 [B, h, w], at least 0. They
    are h * w times the paper's, so that with a linear head on the mean features they equal the class
    activation maps of Zhou et al. 2016 (arXiv:1512.04150). Only the first `num_classes` classes are used.
    """

    def apply(variables, x, instead=None) -> tuple[Any, Any]:
        """Returns logits and features; `instead` replaces the features in later layers."""
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

    # Two programs, because in a single one the compiler may recompute the features, with other rounding, for
    # the gradient of a maximum. The second omits the layers before the features.
    first = jax.jit(lambda variables, x: apply(variables, x)[1], compiler_options=compiler_options)
    second = jax.jit(evidence, compiler_options=compiler_options)

    def grad_cam(variables, x, classes=None):
        return second(variables, x, first(variables, x), classes)

    return grad_cam


class Explainer:
    """Computes the Grad-CAM of predicted classes; compiles once per batch size."""

    def __init__(self, trained: LoadedModel, num_classes: int | None = None):
        """Places the weights on the device; compiles nothing yet; predicts `num_classes` classes."""
        self._variables = jax.device_put(trained.variables)
        self._prepare = jax.jit(preprocessing.Preprocessing(**trained.normalization))
        self._grad_cam = make_grad_cam(trained.model, runtime.compiler_options(), num_classes)

    def __call__(
        self, images: Any, batch_size: int = 64, progress: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Computes probabilities, and the Grad-CAM of the predicted class, for all faces.

        Images are uint8 [N, H, W, C], an array or an object with `shape` that integer arrays index.

        Returns:
          Probabilities float64 [N, num_classes] and heatmaps float32 [N, h, w], at least 0.

        Raises:
          ValueError: there are no images, or the batch size is below 1.
        """
        count = images.shape[0]
        if not count:
            raise ValueError("no images to explain: the split is empty")
        if batch_size < 1:
            raise ValueError(f"the batch size is {batch_size}, expected 1 or more")
        whole, logits, maps = augment.identity_affine(batch_size), [], []
        for start in tqdm(range(0, count, batch_size), "explaining", unit="batch", disable=not progress):
            index = np.minimum(np.arange(start, start + batch_size), count - 1)
            found = self._grad_cam(self._variables, self._prepare(images[index], whole))
            for results, values in zip((logits, maps), found, strict=True):
                results.append(np.asarray(values))
        logits, maps = np.concatenate(logits)[:count], np.concatenate(maps)[:count]
        return batch_inference.softmax(logits.astype(np.float64)), maps
