"""The models and face detectors that the app offers; each is loaded once for all visitors."""

import argparse
import importlib.util
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from fer_jax.inference.classifier import Classifier
from fer_jax.inference.detection import detectors
from fer_jax.loaded_model import LoadedModel
from fer_jax.pretrained.registry import BUNDLED, find_weights
from fer_jax.weights_file import DamagedCheckpointError

MODELS_VARIABLE = "FER_JAX_MODELS"
WHOLE = "whole"
DETECTORS = {
    "yunet": "YuNet (small and leaning faces, too)",
    "mediapipe": "MediaPipe (faces near the camera)",
    WHOLE: "none: each picture is one face",
}
_BUNDLED_NAME = "{} (comes with fer_jax)"
_MOST_MODELS = 4  # that are kept loaded
_TRY_AGAIN = 300  # seconds after which a detector that could not be had is looked for again

# Pictures are worked on one at a time: memory then holds one large picture, however many visitors there are.
TURN = threading.Lock()


def models_folder(arguments: Sequence[str]) -> Path | None:
    """The folder with further models that whoever starts the app names; None where they name none.

    Args:
      arguments: what stands after `--` in `streamlit run app.py -- --models DIR`.

    Raises:
      ValueError: they are not understood, or there is no such folder.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--models", default=os.environ.get(MODELS_VARIABLE) or None)
    try:
        known, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}; expected --models DIR") from error
    if others:
        raise ValueError(f"{' '.join(others)} is not understood; expected --models DIR")
    if known.models and not Path(known.models).is_dir():
        raise ValueError(
            f"there is no folder {known.models}: give one with .safetensors files by --models or "
            f"${MODELS_VARIABLE}"
        )
    return Path(known.models) if known.models else None


def find(folder: Path | None) -> dict[str, str]:
    """Paths of the models on offer by their names: those that come with the package, and the folder's."""
    found = {_BUNDLED_NAME.format(name): find_weights(name) for name in BUNDLED}
    others = sorted(folder.glob("**/*.safetensors")) if folder else []
    return found | {str(path.relative_to(folder).with_suffix("")): str(path) for path in others}


def find_detectors() -> list[str]:
    """The detectors whose packages are installed; the one to take first."""
    there = importlib.util.find_spec("mediapipe") is not None
    return [name for name in DETECTORS if name != "mediapipe" or there]


def load_classifier(path: str) -> tuple[Classifier | None, str]:
    """A model, or None and why it cannot be used."""
    try:
        return _load_classifier(path, os.stat(path).st_mtime_ns), ""
    except (OSError, ValueError, DamagedCheckpointError) as error:
        return None, str(error)


@st.cache_resource(show_spinner="Loading the model ...", max_entries=_MOST_MODELS)
def _load_classifier(path: str, changed: int) -> Classifier:
    """The model as the file was when it was last changed: one that is trained on is loaded anew."""
    return Classifier(LoadedModel(path))


@st.cache_resource(show_spinner="Loading the face detector ...", ttl=_TRY_AGAIN)
def load_detector(name: str) -> tuple[detectors.Detector, str]:
    """A detector, and why it is not the one asked for but `FullImage`, or ''."""
    try:
        return detectors.create(name), ""
    except (OSError, ImportError) as error:
        return detectors.FullImage(), str(error)
