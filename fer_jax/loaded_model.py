"""A trained network as a file holds it, with all that its predictions need."""

import functools
import hashlib
import json
import os
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from fer_jax import batch_inference, models, preprocessing, runtime, weights_file
from fer_jax.data.emotions import EMOTIONS, class_names

# What of a checkpoint's facts an evaluation cannot do without.
NEEDED_FACTS = (
    "model.name",
    "model.kwargs",
    "preprocess.image_size",
    "preprocess.channels",
    "preprocess.mean",
    "preprocess.std",
    "preprocess.fill",
    "preprocess.interpolation",
    "emotions",
    "data",
    "data_hash",
)


class LoadedModel:
    """A network, its weights and the facts about them.

    Attributes:
      source: where the weights came from, as it was given.
      model: the Flax module.
      variables: {"params", "batch_stats"}, float32 NumPy leaves.
      facts: see `weights_file.load_weights`.
    """

    def __init__(self, source: os.PathLike | str):
        """Reads weights.

        Args:
          source: a safetensors file, one step of a run's checkpoints or a run's work directory.

        Raises:
          FileNotFoundError: nothing of the kind is there.
          DamagedCheckpointError: it cannot be read.
          ValueError: the facts do not tell how to use the weights, or the weights do not fit the network
            that they name; the message names the file and what is wrong.
        """
        self.source = str(source)
        self.variables, self.facts = weights_file.load_weights(source)
        self.model = self._create()

    def _create(self) -> nn.Module:
        facts = self.facts
        if missing := [name for name in NEEDED_FACTS if not _has(facts, name)]:
            raise ValueError(
                f"the facts in {self.source} lack {', '.join(missing)}, which an evaluation needs: take "
                "weights that fer_jax's training wrote, such as RUN/best.safetensors"
            )
        if facts["emotions"] not in [list(class_names(n)) for n in (7, 8)]:
            raise ValueError(
                f"{self.source} tells {facts['emotions']} apart; expected {list(EMOTIONS)}, in this order, "
                "and contempt if there is an eighth class"
            )
        try:
            # Whatever the training computed in: the weights are float32, and so is what they are served in.
            kwargs = {key: value for key, value in facts["model"]["kwargs"].items() if key != "dtype"}
            model = models.create(facts["model"]["name"], len(facts["emotions"]), **kwargs)
            models.check_fit(self.variables, model, self.input_shape)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from error
        return model

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(S, S, C) of what the network takes."""
        side = self.facts["preprocess"]["image_size"]
        return side, side, self.facts["preprocess"]["channels"]

    @property
    def parameters(self) -> int:
        """How many parameters the network has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.variables["params"]))

    @property
    def digest(self) -> str:
        """SHA-256 of the network, its weights and its input, hexadecimal, whatever file they are in."""
        shape = [self.facts[key] for key in ("model", "preprocess", "emotions")]
        found = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.variables):
            found.update(jax.tree_util.keystr(path).encode())
            found.update(np.ascontiguousarray(leaf))
        return found.hexdigest()

    @property
    def normalization(self) -> dict[str, Any]:
        """The arguments of `preprocessing.make_forward` besides the model."""
        kept = {key: value for key, value in self.facts["preprocess"].items() if key != "image_size"}
        return {"size": self.input_shape[0], **kept}

    @functools.cached_property
    def forward(self) -> batch_inference.Forward:
        """The compiled evaluation pass, see `batch_inference.compile_forward`."""
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
        """Probabilities of faces.

        Args:
          images: uint8 [N, H, W, C].
          num_classes: of the first so many classes, renormalised; None for all.
          batch_size, tta, progress: as `batch_inference.predict` takes them.

        Returns:
          float64 [N, num_classes], rows that sum to 1.
        """
        probs = batch_inference.predict(
            self.forward, self.variables, images, batch_size=batch_size, tta=tta, progress=progress
        )
        return batch_inference.restrict(probs, num_classes or probs.shape[1])


def _has(facts: Any, name: str) -> bool:
    """Whether nested dictionaries hold a dotted name."""
    for key in name.split("."):
        if not isinstance(facts, dict) or key not in facts:
            return False
        facts = facts[key]
    return True
