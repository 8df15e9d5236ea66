"""Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): a network learns what others answer.

The teachers see the very view that the student learns from, turned, erased and mixed as it is (Beyer et al.
2022, arXiv:2106.05237), each at its own input size.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import losses, steps
from fer_jax.data import augment
from fer_jax.evaluation.trained import Trained


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What teachers add to a training.

    Attributes:
      teach: a batch of `data.pipeline.TrainStream` -> the teachers' probabilities float32 [B, K], their
        mean, each softened by the temperature.
      weight: of their part in the loss; the labels have the rest.
      temperature: that both sides' logits are divided by.
    """

    teach: Callable[[dict[str, jax.Array]], jax.Array]
    weight: float
    temperature: float

    def loss(self, logits: jax.Array, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Cross entropy [B, K] against the teachers, times the squared temperature, as (sum, examples).

        The factor keeps the gradient's size whatever the temperature (section 2 of the paper).
        """
        wanted = jax.lax.stop_gradient(self.teach(batch))
        total, count = losses.cross_entropy(logits / self.temperature, wanted)
        return self.temperature**2 * total, count


def make_distillation(
    teachers: Sequence[Trained], *, weight: float, temperature: float, dtype: Any = "float32"
) -> Distillation:
    """The teaching of trained networks.

    Args:
      teachers: the networks, of the student's classes.
      weight: of their part in the loss, in (0, 1].
      temperature: more than 0.
      dtype: of their computation.
    """

    def teach(batch):
        answers = [_answer(teacher, batch, temperature, dtype) for teacher in teachers]
        return sum(answers) / len(answers)

    return Distillation(teach, weight, temperature)


def _answer(teacher: Trained, batch: dict[str, jax.Array], temperature: float, dtype: Any) -> jax.Array:
    how = teacher.normalization
    x, _ = augment.apply(batch, how["size"], how["fill"], np.mean(how["mean"]), how["interpolation"])
    x = steps.normalize(x, how["mean"], how["std"], how["channels"])
    logits = teacher.model.clone(dtype=dtype).apply(teacher.variables, x, train=False)
    return jax.nn.softmax(logits.astype(jnp.float32) / temperature)
