"""Loads a network with its weights and everything that its predictions need.

Imports JAX only when the Flax module is used, because ONNX Runtime can run the network without it.
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
    """A network with its `variables` and `metadata` (see `weights_file.load_weights`), and their `source`."""

    def __init__(self, source: os.PathLike | str):
        """Loads weights from a safetensors file, a checkpoint of a run, or a run directory.

        Raises:
          FileNotFoundError: there are no weights at `source`.
          DamagedCheckpointError: they cannot be read.
          ValueError: the metadata is invalid; the message names the file and the field.
        """
        self.source = str(source)
        self.variables, self.metadata = weights_file.load_weights(source)
        check_network(self.metadata, self.source)

    @functools.cached_property
    def model(self) -> "nn.Module":
        """Returns the Flax module.

        Raises:
          ValueError: the network is unknown, or the weights do not fit it; the message names the file.
        """
        from fer_jax import models

        metadata = self.metadata
        try:
            # Evaluation uses float32, whatever the training dtype.
            kwargs = {key: value for key, value in metadata["model"]["kwargs"].items() if key != "dtype"}
            model = models.create(metadata["model"]["name"], len(metadata["emotions"]), **kwargs)
            models.check_fit(self.variables, model, self.input_shape)
        except Exception as error:  # Flax and JAX raise many types for bad attributes
            raise ValueError(f"{self.source}: {error}") from error
        return model

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Returns the shape (S, S, C) of the network's input."""
        side = self.metadata["preprocess"]["image_size"]
        return side, side, self.metadata["preprocess"]["channels"]

    @property
    def face_shape(self) -> tuple[int, int, int]:
        """Returns the shape (side, side, channels) of the crops that inference makes for the network.

        They are no larger than the training faces, so that they are as blurred as these were after enlarging.
        """
        faces = self.metadata.get("faces") or {}
        side = min(faces.get("side") or self.input_shape[0], self.input_shape[0])
        return side, side, faces.get("channels", 1)

    @property
    def temperature(self) -> float:
        """Returns the temperature that divides the logits; 1 if the weights are not calibrated."""
        return (self.metadata.get("calibration") or {}).get("temperature", 1.0)

    @property
    def parameters(self) -> int:
        """Returns the number of parameters."""
        return sum(leaf.size for leaf in weights_file.flatten(self.variables["params"]).values())

    @property
    def digest(self) -> str:
        """Returns the hexadecimal SHA-256 of the network, its weights, and its input."""
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
        """Returns the compiled forward pass, see `batch_inference.compile_forward`."""
        from fer_jax import batch_inference
        from fer_jax.data import preprocessing

        forward = preprocessing.make_forward(self.model, **self.normalization)
        return batch_inference.compile_forward(forward)

    def predict(
        self,
        images: Any,
        *,
        num_classes: int | None = None,
        batch_size: int = 256,
        tta: str = "none",
        progress: bool = True,
    ) -> np.ndarray:
        """Predicts class probabilities.

        Args:
          images: uint8 [N, H, W, C].
          num_classes: number of classes to keep, renormalized; None for all.
          batch_size, tta, progress: as in `batch_inference.predict`.

        Returns:
          float64 [N, num_classes], rows that sum to 1.
        """
        from fer_jax import batch_inference

        probs = batch_inference.predict(
            self.forward, self.variables, images, batch_size=batch_size, tta=tta, progress=progress
        )
        return batch_inference.restrict(probs, num_classes or probs.shape[1])
