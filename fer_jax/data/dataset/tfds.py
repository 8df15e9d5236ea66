"""Defines the dataset for TensorFlow Datasets; imports TFDS, but not TensorFlow."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data import ferplus
from fer_jax.data.emotions import EMOTIONS


class FerBuilder(tfds.core.GeneratorBasedBuilder):
    """A builder that writes PNG-encoded faces to ArrayRecord files.

    Takes PNG bytes, because TFDS would need TensorFlow to encode arrays.
    """

    name = "fer"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        examples: dict[str, Callable[[], Iterable[dict[str, Any]]]],
        channels: int,
        votes: bool,
        **kwargs: Any,
    ):
        """Builds from `examples`, a function for each split that yields its examples in order.

        An example is {"image": PNG bytes, "label": int, "id": str} and, with `votes`, "votes", uint8 [10].
        All PNGs have `channels` (1 or 3) channels.
        """
        self._examples = examples
        self._channels = channels
        self._votes = votes
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, self._channels), encoding_format="png")
        label = tfds.features.ClassLabel(names=list(EMOTIONS))
        features = {"image": image, "label": label, "id": tfds.features.Text()}
        if self._votes:
            features["votes"] = tfds.features.Tensor(
                shape=(len(ferplus.COLUMNS),), dtype=np.uint8, doc=f"FER+: {', '.join(ferplus.COLUMNS)}"
            )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Faces labeled with one of seven emotions.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # keep the source's order; the pipeline shuffles
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in self._examples}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(self._examples[split]())
