"""Labels that are probably wrong, by confident learning (Northcutt et al. 2021, arXiv:1911.00068)."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_jax import tables
from fer_jax.evaluation import plots
from fer_jax.evaluation.metrics import classification
from fer_jax.io_utils import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Suspect:
    """An image whose label is probably wrong.

    Attributes:
      index: of the image among those that were looked at.
      id: its name.
      label: the class it is labelled as.
      suggested: the most probable class, another one.
      quality: the probability of the label, in [0, 1]: the lower, the more doubtful.
    """

    index: int
    id: str
    label: int
    suggested: int
    quality: float


def find_suspects(probs: np.ndarray, labels: np.ndarray, ids: Sequence[str]) -> list[Suspect]:
    """Ranks the labels that confident learning takes for errors, the most doubtful first.

    The probabilities have to be of a model that has not seen the image with its label: out of fold for
    images that were trained on. As cleanlab's `find_label_issues` with its defaults: from how surely each
    class is taken for each other one follows how many labels are wrong, and so many of the images of which
    the model is surest are suspects.

    Args:
      probs: float [N, K], rows that sum to 1.
      labels: int [N].
      ids: N names, unique.

    Raises:
      ValueError: as `classification.check`, or another number of ids.
    """
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    classification.check(probs, labels)
    if len(ids) != len(labels):
        raise ValueError(f"expected an id for each of {len(labels)} images, got {len(ids)}")
    # It takes seconds to import, and not every evaluation comes here.
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    with warnings.catch_warnings():
        # Where a class has no images; and the others are looked at all the same.
        warnings.filterwarnings("ignore", "May not flag all label issues in class")
        # One process: a fork of one that JAX runs in may hang.
        wrong = find_label_issues(labels, probs, n_jobs=1)
    quality = get_label_quality_scores(labels, probs)
    ranked = np.flatnonzero(wrong)
    ranked = ranked[np.argsort(quality[ranked], kind="stable")]
    suggested = probs.argmax(axis=1)
    return [
        Suspect(int(i), str(ids[i]), int(labels[i]), int(suggested[i]), float(quality[i])) for i in ranked
    ]


def write_suspects(path: pathlib.Path, suspects: Sequence[Suspect], names: Sequence[str]) -> None:
    """Writes a CSV `id,label,suggested,quality`, classes by name: what config.data.drop_ids takes."""
    rows = [("id", "label", "suggested", "quality")]
    rows += [(s.id, names[s.label], names[s.suggested], f"{s.quality:.6g}") for s in suspects]
    write_atomically(path, tables.csv_text(rows).encode())


def plot_suspects(
    images: Any, suspects: Sequence[Suspect], names: Sequence[str], path: pathlib.Path
) -> Figure:
    """A sheet of suspects: the label, the suggested class, the probability of the label.

    Args:
      images: uint8 [N, H, W, C], an array or an object that integer arrays index, which `suspects` are of.
      suspects: those to show, from `find_suspects`.
      names: of the classes.
      path: of the picture.
    """
    captions = [f"{names[s.label]} {100 * s.quality:.1f} %\nrather {names[s.suggested]}" for s in suspects]
    title = f"The {len(suspects)} most doubtful labels: the label and its probability, the likelier class"
    return plots.plot_faces(images[np.array([s.index for s in suspects], int)], captions, title, path)
