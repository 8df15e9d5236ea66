"""A trained network as a file holds it, with all that its predictions need."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from fer_jax import batch_inference, models, preprocessing, runtime, weights_file
from fer_jax.data import ferplus
from fer_jax.data.dataset import builder
from fer_jax.data.emotions import EMOTIONS, class_names
from fer_jax.data.faces import Faces
from fer_jax.evaluation import leakage, leakage_policy, predictions_file

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


@dataclasses.dataclass(frozen=True)
class LabelledSplit:
    """A split as a network is judged on it.

    Attributes:
      faces: those that have a label, with the labels to judge by.
      kept: int [N], their places in the split.
      whole: the split with the labels that it came with.
      rule: `ferplus.GIVEN` or the name of a FER+ rule: where the labels to judge by are from.
      names: the classes; a network that tells one more apart is judged by these alone.
    """

    faces: Faces
    kept: np.ndarray
    whole: Faces
    rule: str
    names: list[str]


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
        return predictions_file.restrict(probs, num_classes or probs.shape[1])

    def load_split(self, data_dir: str, split: str) -> Faces:
        """A split of a dataset with its given labels, its faces as the network takes them.

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

    def load_judged(
        self, data_dir: str, split: str, rule: str | None = None, num_classes: int | None = None
    ) -> LabelledSplit:
        """A split with the labels to judge the network by.

        Args:
          data_dir: the dataset's folder.
          split: its split.
          rule: `ferplus.GIVEN` or one of `ferplus.RULES`; None for that of the training. Faces that it gives
            no label are left out.
          num_classes: to judge by: 8, or 7, which rules out contempt and leaves out faces with that label;
            None for the network's, and for 7 by given labels, which know no contempt.

        Raises:
          As `load_split`.
          ValueError: a FER+ rule for data without votes, or no face has a label by it; more classes than the
            network or the labels know.
        """
        faces, names = self.load_split(data_dir, split), self.facts["emotions"]
        rule = rule or self.facts.get("labels", ferplus.GIVEN)
        known = len(EMOTIONS) if rule == ferplus.GIVEN else len(names)
        if (num_classes or known) > known:
            whose = f"labels {rule}" if known < len(names) else f"{self.source}"
            raise ValueError(f"{num_classes} classes to judge by: {whose} know {known}")
        names = list(names[: num_classes or known])
        if rule == ferplus.GIVEN:
            return LabelledSplit(faces, np.arange(len(faces)), faces, rule, names)
        if faces.votes is None:
            raise ValueError(
                f"labels by {rule} need FER+ votes, and {data_dir} has none: prepare it with "
                "scripts/prepare_data.py --ferplus fer2013new.csv, or give --labels given"
            )
        kept = np.flatnonzero(ferplus.labels(faces.votes, rule, len(names))[0] != ferplus.LEFT_OUT)
        if not len(kept):
            raise ValueError(f"no face of {split} in {data_dir} has a label by {rule}")
        return LabelledSplit(ferplus.relabel(faces, rule, len(names)), kept, faces, rule, names)

    def find_copies(
        self, images: Any, facts: dict[str, Any], data_dirs: Iterable[os.PathLike | str]
    ) -> np.ndarray | None:
        """What each image shares with the splits that had a part in the weights.

        The split that the images are of is left out: what it had to do with the weights is said by itself.

        Args:
          images: uint8 [N, H, W, C], as `load_split` gives them.
          facts: as `leakage_policy.judge` takes them.
          data_dirs: datasets to look for those splits in.

        Returns:
          int8 [N], places in `leakage.KINDS`; None where one of those splits is in none of the datasets.
        """
        used = {one.hash for one in leakage_policy.used_splits(facts)}
        wanted = used - {leakage_policy.split_hash(facts["data"], facts["split"])}
        if None in wanted:
            return None
        copies = np.zeros(images.shape[0], np.int8)
        for data_dir in data_dirs:
            at_hand = leakage_policy.find_splits(wanted, builder.describe(builder.read_manifest(data_dir)))
            for found, name in at_hand.items():
                others = self.load_split(data_dir, name).images
                copies = np.maximum(copies, leakage.find_copies(images, others))
                wanted.remove(found)
        return None if wanted else copies


def _has(facts: Any, name: str) -> bool:
    """Whether nested dictionaries hold a dotted name."""
    for key in name.split("."):
        if not isinstance(facts, dict) or key not in facts:
            return False
        facts = facts[key]
    return True
