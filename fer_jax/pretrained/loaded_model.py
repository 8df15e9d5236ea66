"""A network loaded with its weights and everything that its predictions need.

Imports JAX only when the network itself is asked for: who has it computed by another library needs none.
"""

import functools
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_jax.pretrained import weights_file
from fer_jax.pretrained.metadata import check_network

if TYPE_CHECKING:
    import flax.linen as nn

    from fer_jax import batch_inference


class LoadedModel:
    """A network with its weights and metadata.

    Attributes:
      source: of the weights, as it was given.
      variables: {"params", "batch_stats"}, float32 NumPy leaves.
      metadata: see `weights_file.load_weights`.
    """

    def __init__(self, source: os.PathLike | str):
        """Loads weights.

        Args:
          source: a safetensors file, one step of a run's checkpoints, or a run's work directory.

        Raises:
          FileNotFoundError: there are no weights at `source`.
          DamagedCheckpointError: they cannot be read.
          ValueError: the metadata does not tell how to use the weights; the message names the file and what
            is wrong.
        """
        self.source = str(source)
        self.variables, self.metadata = weights_file.load_weights(source)
        check_network(self.metadata, self.source)

    @functools.cached_property
    def model(self) -> "nn.Module":
        """Returns the Flax module.

        Raises:
          ValueError: there is no such network, or the weights do not fit it; the message names the file.
        """
        from fer_jax import models

        metadata = self.metadata
        try:
            # Weights are float32 and used in float32, whatever type they were trained in.
            kwargs = {key: value for key, value in metadata["model"]["kwargs"].items() if key != "dtype"}
            model = models.create(metadata["model"]["name"], len(metadata["emotions"]), **kwargs)
            models.check_fit(self.variables, model, self.input_shape)
        except Exception as error:  # attributes of any type, to which Flax and JAX reply with many
            raise ValueError(f"{self.source}: {error}") from error
        return model

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Returns (S, S, C) of the network's input."""
        side = self.metadata["preprocess"]["image_size"]
        return side, side, self.metadata["preprocess"]["channels"]

    @property
    def face_shape(self) -> tuple[int, int, int]:
        """Returns (side, side, channels) of the faces that inference crops for the network.

        They are no larger than in training: faces that were enlarged to the network's input were not sharp.
        """
        faces = self.metadata.get("faces") or {}
        side = min(faces.get("side") or self.input_shape[0], self.input_shape[0])
        return side, side, faces.get("channels", 1)

    @property
    def temperature(self) -> float:
        """Returns what divides the logits; 1 if the weights are not calibrated."""
        return (self.metadata.get("calibration") or {}).get("temperature", 1.0)

    @property
    def parameters(self) -> int:
        """Returns the number of parameters."""
        return sum(leaf.size for leaf in weights_file.flatten(self.variables["params"]).values())

    @property
    def digest(self) -> str:
        """Returns the hexadecimal SHA-256 of the network, its weights, and its input, whatever their file."""
        import jax

        shape = [self.metadata[key] for key in ("model", "preprocess", "emotions")]
        found = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            found.update(jax.tree_util.keystr(path).encode())
            found.update(np.ascontiguousarray(leaf))
        return found.hexdigest()

    @property
    def normalization(self) -> dict[str, Any]:
        """Returns the arguments of `preprocessing.make_forward` besides the model."""
        kept = {key: value for key, value in self.metadata["preprocess"].items() if key != "image_size"}
        return {"size": self.input_shape[0], **kept}

    @functools.cached_property
    def forward(self) -> "batch_inference.Forward":
        """Returns the compiled evaluation pass, see `batch_inference.compile_forward`."""
        from fer_jax import batch_inference, runtime
        from fer_jax.data import preprocessing

        forward = preprocessing.make_forward(self.model, **self.normalization)
        return batch_inference.compile_forward(forward, runtime.compiler_options())

    def predict(
        self,
        images: Any,
        *,
        num_classes: int | None = None,
        batch_size: int = 256,
        tta: str = "none",
        progress: bool = True,
    ) -> np.ndarray:
        """Predicts the probabilities of faces.

        Args:
          images: uint8 [N, H, W, C].
          num_classes: keep the first so many classes, renormalized; None for all.
          batch_size, tta, progress: as `batch_inference.predict` takes them.

        Returns:
          float64 [N, num_classes], rows that sum to 1.
        """
        from fer_jax import batch_inference

        probs = batch_inference.predict(
            self.forward, self.variables, images, batch_size=batch_size, tta=tta, progress=progress
        )
        return batch_inference.restrict(probs, num_classes or probs.shape[1])
