"""A trained network as a file holds it, with all that its predictions need."""

import functools
import os
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from fer_jax import checkpoints, models, platform, state, steps
from fer_jax.data import builder
from fer_jax.data.emotions import EMOTIONS, class_names
from fer_jax.data.faces import Faces
from fer_jax.evaluation import predict

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


class Trained:
    """A network, its weights and the facts about them.

    Attributes:
      source: where the weights came from, as it was given.
      model: the Flax module.
      variables: {"params", "batch_stats"}, float32 NumPy leaves.
      facts: see `checkpoints.load_weights`.
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
        self.variables, self.facts = checkpoints.load_weights(source)
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
            model = models.create(facts["model"]["name"], len(facts["emotions"]), **facts["model"]["kwargs"])
            state.check_fit(self.variables, model, self.input_shape)
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
    def normalization(self) -> dict[str, Any]:
        """The arguments of `steps.make_forward` besides the model: how the network's input is made."""
        kept = {key: value for key, value in self.facts["preprocess"].items() if key != "image_size"}
        return {"size": self.input_shape[0], **kept}

    @functools.cached_property
    def forward(self) -> predict.Forward:
        """The compiled evaluation pass, see `predict.compile_forward`."""
        forward = steps.make_forward(self.model, **self.normalization)
        return predict.compile_forward(forward, platform.compiler_options())

    def predict(
        self, images: Any, *, batch_size: int = 256, tta: str = "none", progress: bool = True
    ) -> np.ndarray:
        """Probabilities float64 [N, K] of faces uint8 [N, H, W, C]; arguments as `predict.predict`'s."""
        return predict.predict(
            self.forward, self.variables, images, batch_size=batch_size, tta=tta, progress=progress
        )

    def load_split(self, data_dir: str, split: str) -> Faces:
        """A split of a dataset, its faces as the network takes them.

        Raises:
          As `builder.load`.
          ValueError: the faces have colours and the network takes grey ones.
        """
        manifest = builder.read_manifest(data_dir)
        channels = self.input_shape[-1]
        if manifest["channels"] not in (1, channels):
            raise ValueError(
                f"the faces of {data_dir} have {manifest['channels']} channels (colour) and the model "
                f"of {self.source} takes {channels} (grey): prepare grey copies of the images, or evaluate "
                f"a model that was trained in colour"
            )
        # The size the training loaded faces at; otherwise their own or, if they differ, the model's.
        size = self.facts.get("loaded_size")
        if not size and not manifest["image_shape"]:
            size = self.input_shape[0]
        return builder.load(data_dir, split, image_size=size)


def _has(facts: Any, name: str) -> bool:
    """Whether nested dictionaries hold a dotted name."""
    for key in name.split("."):
        if not isinstance(facts, dict) or key not in facts:
            return False
        facts = facts[key]
    return True
