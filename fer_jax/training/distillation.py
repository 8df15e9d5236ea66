"""Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): a network learns what others answer.

Either the teachers see the view that the student learns from, turned, erased and mixed as it is (Beyer et al.
2022, arXiv:2106.05237), each drawn at its own input size; then label smoothing, class weights and the focal
factor act on the labels' part of the loss alone. Or they answer once, before training, and what they answer
is part of the faces' targets (`blend`): the training step costs no more than without teachers, and label
smoothing, class weights and the focal factor act on both parts.
"""

import dataclasses
import hashlib
import io
import logging
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import preprocessing
from fer_jax.data import transforms
from fer_jax.data.faces import Faces
from fer_jax.io_utils import write_atomically
from fer_jax.loaded_model import LoadedModel
from fer_jax.training import losses

VIEWS = ("augmented", "plain")
ANSWERS_FILE = "answers.npz"


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What teachers add to a training.

    Attributes:
      teachers: the networks, of the student's classes.
      weight: of their part in the loss, in (0, 1]; the labels have the rest.
      temperature: that both sides' logits are divided by, more than 0.
      fill: what lies outside the image, as the student sees it.
      dtype: of the teachers' computation.
    """

    teachers: Sequence[LoadedModel]
    weight: float
    temperature: float
    fill: str = "reflect"
    dtype: Any = "float32"

    @property
    def variables(self) -> list[Any]:
        """The teachers' weights, which the training step takes as an argument."""
        return [teacher.variables for teacher in self.teachers]

    def teach(self, variables: Sequence[Any], batch: dict[str, jax.Array]) -> jax.Array:
        """A batch of `data.pipeline.TrainStream` -> the mean of the teachers' softened probabilities.

        Returns:
          float32 [B, K].
        """
        pairs = zip(self.teachers, variables, strict=True)
        answers = [self._answer(teacher, weights, batch) for teacher, weights in pairs]
        return sum(answers) / len(answers)

    def _answer(self, teacher: LoadedModel, variables: Any, batch: dict[str, jax.Array]) -> jax.Array:
        how = teacher.normalization
        x, _ = transforms.apply(batch, how["size"], self.fill, np.mean(how["mean"]), how["interpolation"])
        x = preprocessing.normalize(x, how["mean"], how["std"], how["channels"])
        logits = teacher.model.clone(dtype=self.dtype).apply(variables, x, train=False)
        return jax.nn.softmax(logits.astype(jnp.float32) / self.temperature)

    def loss(
        self, logits: jax.Array, variables: Sequence[Any], batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Cross entropy of logits [B, K] against the teachers, times the squared temperature.

        The factor keeps the gradient's size whatever the temperature (section 2 of the paper).

        Returns:
          Two float32 scalars, the sum over the batch and the number of examples.
        """
        wanted = jax.lax.stop_gradient(self.teach(variables, batch))
        total, count = losses.cross_entropy(logits / self.temperature, wanted)
        return self.temperature**2 * total, count


def blend(
    faces: Faces, teachers: Sequence[LoadedModel], weight: float, workdir: pathlib.Path, dataset: str | None
) -> Faces:
    """Returns faces whose targets are `weight` parts the teachers' answers and the rest their own.

    A teacher's answer is the mean of its probabilities for the face and its mirror image, neither augmented.
    The mean over the teachers is kept in the run's directory, so that a resumed run does not ask again.

    Args:
      faces: to train on.
      teachers: at least one, of the classes that `faces.targets` has.
      weight: in (0, 1].
      workdir: the run's directory.
      dataset: hash of the split that the faces are of.
    """
    file, asked = workdir / ANSWERS_FILE, _digest(faces, teachers, dataset)
    answers = _kept(file, asked)
    if answers is None:
        speaks = jax.process_index() == 0
        logging.info("%d teachers answer for %d faces", len(teachers), len(faces))
        answers = np.mean(
            [teacher.predict(faces.images, tta="flip", progress=speaks) for teacher in teachers], axis=0
        )
        answers = answers.astype(np.float32)
        if speaks:
            content = io.BytesIO()
            np.savez(content, asked=asked, answers=answers)
            write_atomically(file, content.getvalue())
    targets = (1 - weight) * faces.targets + weight * answers
    return dataclasses.replace(faces, targets=targets.astype(np.float32))


def _digest(faces: Faces, teachers: Sequence[LoadedModel], dataset: str | None) -> str:
    """Returns the SHA-256 of the teachers' weights and of which faces they are asked about."""
    asked = [str(dataset), str(faces.image_shape), *(teacher.digest for teacher in teachers), *faces.ids]
    return hashlib.sha256("\n".join(asked).encode()).hexdigest()


def _kept(file: pathlib.Path, asked: str) -> np.ndarray | None:
    """Returns the answers to what is asked, None where no whole file has them."""
    try:
        with np.load(file) as kept:
            return kept["answers"] if kept["asked"] == asked else None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
