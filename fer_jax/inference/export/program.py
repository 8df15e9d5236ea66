"""Defines the exported function: a network with its pre- and postprocessing."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import batch_inference
from fer_jax.data import augment, preprocessing, transforms
from fer_jax.models.ops.portable import portable
from fer_jax.pretrained.loaded_model import LoadedModel

INPUT = "faces"


@jax.jit
def softmax(logits: jax.Array) -> jax.Array:
    """Returns the softmax; a named function, which formats recognize."""
    return jax.nn.softmax(logits)


@dataclasses.dataclass(frozen=True)
class Program:
    """A network with its pre- and postprocessing.

    Computes in float32 with standard operations, whatever the training dtype.

    Attributes:
      trained: the network and its weights.
      preprocessing: 'inside' takes faces uint8 [N, *trained.face_shape] in [0, 255], which it enlarges and
        normalizes as in evaluation; 'outside' takes normalized float32 [N, *trained.input_shape].
      softmax: 'inside' returns probabilities float32 [N, K] at `trained.temperature`; 'outside' returns
        logits, without it.
    """

    trained: LoadedModel
    preprocessing: str = "inside"
    softmax: str = "inside"

    def __post_init__(self):
        self.trained.model  # noqa: B018  # validated before tracing

    @property
    def dtype(self) -> Any:
        """Dtype of the input."""
        return np.uint8 if self.preprocessing == "inside" else np.float32

    @property
    def output(self) -> str:
        """Name of the output: 'probabilities' or 'logits'."""
        return "probabilities" if self.softmax == "inside" else "logits"

    @property
    def face_shape(self) -> tuple[int, int, int]:
        """Shape (side, side, channels) of a face in the input."""
        return self.trained.face_shape if self.preprocessing == "inside" else self.trained.input_shape

    def __call__(self, faces: jax.Array) -> jax.Array:
        """Returns the `output` of a batch of faces."""
        return self.apply(self.trained.variables, faces)

    def apply(self, variables: Any, faces: jax.Array) -> jax.Array:
        """Returns the `output` of a batch of faces with other weights."""
        if self.preprocessing == "inside":
            faces = self._normalize(faces, None)
        with portable():
            logits: Any = self.trained.model.apply(variables, faces, train=False)
        return softmax(logits / np.float32(self.trained.temperature)) if self.softmax == "inside" else logits

    def fit(self, images: Any) -> np.ndarray:
        """Resizes faces to crops of the size and channels that inference makes.

        Args:
          images: uint8 [N, H, W, 1 or C], an array or an object that integer arrays index.

        Returns:
          uint8 [N, *trained.face_shape]; unchanged if they already fit.
        """
        side, _, channels = self.trained.face_shape
        preprocess = self.trained.metadata["preprocess"]
        arguments = {key: preprocess[key] for key in ("fill", "interpolation")}

        @jax.jit
        def resize(images, affine):
            x = transforms.resample(images, affine, side, **arguments)
            return jnp.round(jnp.clip(x / augment.PIXEL, 0, 255)).astype(jnp.uint8)

        parts, count = [], images.shape[0]
        for start in range(0, count, 256):
            part = np.asarray(images[np.arange(start, min(start + 256, count))])
            if part.shape[1:3] != (side, side):
                part = np.asarray(resize(part, augment.identity_affine(len(part))))
            parts.append(np.broadcast_to(part, (*part.shape[:3], channels)))
        return np.concatenate(parts)

    def prepare(self, faces: np.ndarray) -> np.ndarray:
        """Converts crops from `fit` to the input of this program."""
        return faces if self.preprocessing == "inside" else np.asarray(self._normalize(faces, None))

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Converts the outputs of an export of this program to probabilities float64 [N, K]."""
        outputs = np.asarray(outputs, np.float64)
        return outputs if self.softmax == "inside" else batch_inference.softmax(outputs)

    @functools.cached_property
    def _normalize(self) -> Callable[[Any, None], jax.Array]:
        return preprocessing.Preprocessing(**self.trained.normalization)

    @functools.cached_property
    def _forward(self) -> Callable[[np.ndarray, np.ndarray], jax.Array]:
        forward = preprocessing.make_forward(self.trained.model, **self.trained.normalization)
        compiled = batch_inference.compile_forward(forward, jax.devices()[:1])
        return functools.partial(compiled, jax.device_put(self.trained.variables))

    def run(self, faces: np.ndarray) -> np.ndarray:
        """Returns probabilities of the evaluation's forward pass, the reference for exports.

        Args:
          faces: crops from `fit`.

        Returns:
          Probabilities float64 [N, K], with `trained.temperature` if the softmax is inside.
        """
        logits = np.asarray(self._forward(faces, augment.identity_affine(len(faces))), np.float64)
        return batch_inference.softmax(logits / (self.trained.temperature if self.softmax == "inside" else 1))
