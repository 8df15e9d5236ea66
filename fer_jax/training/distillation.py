"""Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531).

Either the teachers predict the student's augmented view of a face (Beyer et al. 2022, arXiv:2106.05237), each
at its own input size; then label smoothing, class weights, and the focal factor apply only to the loss on the
labels. Or they predict once, before training, and their predictions are blended into the targets (`blend`):
training steps cost no more than without teachers, and label smoothing, class weights, and the focal factor
apply to the blend.
"""

import dataclasses
import functools
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

from fer_jax.data.faces import Faces
from fer_jax.data.preprocessing import Preprocessing
from fer_jax.io_utils import write_atomically
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.training import losses
from fer_jax.training.monitoring import StopSignal
from fer_jax.training.sharding import all_or_none, all_processes
from fer_jax.training.split_prediction import predict_split

VIEWS = ("augmented", "plain")
ANSWERS_FILE = "answers.npz"


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The teachers of a run and their loss."""

    teachers: Sequence[LoadedModel]  # networks with the student's classes
    weight: float  # weight of their loss, in (0, 1]; the loss on the labels has the rest
    temperature: float  # divides the logits of student and teachers, above 0
    fill: str = "reflect"  # values outside the image, as for the student
    dtype: Any = "float32"  # dtype of the teachers' computation

    @property
    def variables(self) -> list[Any]:
        """Returns the teachers' weights, an argument of the training step."""
        return [teacher.variables for teacher in self.teachers]

    def teach(self, variables: Sequence[Any], batch: dict[str, jax.Array]) -> jax.Array:
        """Returns the mean of the teachers' softened probabilities for a batch, float32 [B, K]."""
        pairs = zip(self.teachers, variables, strict=True)
        answers = [self._answer(teacher, weights, batch) for teacher, weights in pairs]
        total: Any = sum(answers)
        return total / len(answers)

    def _answer(self, teacher: LoadedModel, variables: Any, batch: dict[str, jax.Array]) -> jax.Array:
        how: dict[str, Any] = teacher.normalization | {"fill": self.fill}
        x, _ = Preprocessing(**how).augmented(batch)
        logits: Any = teacher.model.clone(dtype=self.dtype).apply(variables, x, train=False)
        return jax.nn.softmax(logits.astype(jnp.float32) / self.temperature)

    def loss(
        self, logits: jax.Array, variables: Sequence[Any], batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the cross entropy of logits [B, K] against the teachers, times the squared temperature.

        The factor keeps the gradient's scale independent of the temperature (section 2 of the paper).

        Returns:
          Two float32 scalars, the sum over the batch and the number of examples.
        """
        wanted = jax.lax.stop_gradient(self.teach(variables, batch))
        total, count = losses.cross_entropy(logits / self.temperature, wanted)
        return self.temperature**2 * total, count


def blend(
    faces: Faces,
    teachers: Sequence[LoadedModel],
    weight: float,
    workdir: pathlib.Path,
    dataset: str | None,
    stop: StopSignal,
) -> Faces:
    """Blends the teachers' predictions into the targets of faces, with a weight.

    A teacher's prediction is the mean of its probabilities for the face and its mirror image, without
    augmentation. The mean over teachers is stored in the run directory for resuming. Processes share the
    work.

    Args:
      faces: the training faces.
      teachers: at least one network, with the classes of `faces.targets`.
      weight: in (0, 1].
      workdir: the run directory.
      dataset: hash of the split.
      stop: checked before each batch.

    Raises:
      StoppedError: a stop signal arrived; nothing is stored.
      OSError: the predictions cannot be written; all processes fail.
    """
    file, asked, speaks = workdir / ANSWERS_FILE, _digest(faces, teachers, dataset), jax.process_index() == 0
    answers: Any = _stored(file, asked)
    if not all_processes(answers is not None):
        logging.info("%d teachers predict %d faces", len(teachers), len(faces))
        asks = [functools.partial(teacher.predict, tta="flip", progress=speaks) for teacher in teachers]
        found = [predict_split(ask, faces.images, stop) for ask in asks]
        answers = np.mean(found, axis=0).astype(np.float32)
        with all_or_none():
            if speaks:
                content = io.BytesIO()
                np.savez(content, asked=asked, answers=answers)
                write_atomically(file, content.getvalue())
    targets = (1 - weight) * faces.targets + weight * answers
    return dataclasses.replace(faces, targets=targets.astype(np.float32))


def _digest(faces: Faces, teachers: Sequence[LoadedModel], dataset: str | None) -> str:
    """Returns the SHA-256 of the teachers' weights and the faces."""
    asked = [str(dataset), str(faces.image_shape), *(teacher.digest for teacher in teachers), *faces.ids]
    return hashlib.sha256("\n".join(asked).encode()).hexdigest()


def _stored(file: pathlib.Path, asked: str) -> np.ndarray | None:
    """Returns the stored predictions for a digest, None without an undamaged file that has them."""
    try:
        with np.load(file) as kept:
            return kept["answers"] if kept["asked"] == asked else None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
