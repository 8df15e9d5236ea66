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
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import BUNDLED, find_weights
from fer_jax.pretrained.weights_file import DamagedCheckpointError

MODELS_VARIABLE = "FER_JAX_MODELS"
DETECTORS = {
    "yunet": "YuNet (also small and leaning faces)",
    "mediapipe": "MediaPipe (faces near the camera)",
    "whole": "none: each image is one face",
}
_MAX_MODELS = 4  # that are kept loaded
_RETRY = 300  # seconds after which an unavailable detector is tried again

# Images are processed one at a time, so that memory holds one large image, however many visitors there are.
LOCK = threading.Lock()


def models_folder(arguments: Sequence[str]) -> Path | None:
    """Returns the folder with further models that --models or $FER_JAX_MODELS names, or None.

    Args:
      arguments: what follows `--` in `streamlit run app.py -- --models DIR`.

    Raises:
      ValueError: if the arguments are not understood, or there is no such folder.
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
            f"there is no folder {known.models}: give one with .safetensors files in --models or "
            f"${MODELS_VARIABLE}"
        )
    return Path(known.models) if known.models else None


def find(folder: Path | None) -> dict[str, str]:
    """Returns the paths of the models by their names: the bundled ones, and the folder's."""
    found = {f"{name} (bundled)": find_weights(name) for name in BUNDLED}
    if folder:
        for path in sorted(folder.glob("**/*.safetensors")):
            found[str(path.relative_to(folder).with_suffix(""))] = str(path)
    return found


def find_detectors() -> list[str]:
    """Returns the detectors whose packages are installed, the default first."""
    installed = importlib.util.find_spec("mediapipe") is not None
    return [name for name in DETECTORS if name != "mediapipe" or installed]


def load_classifier(path: str) -> tuple[Classifier | None, str]:
    """Returns a model and '', or None and why it cannot be used."""
    try:
        return _load_classifier(path, os.stat(path).st_mtime_ns), ""
    except (OSError, ValueError, DamagedCheckpointError) as error:
        return None, str(error)


@st.cache_resource(show_spinner="Loading the model ...", max_entries=_MAX_MODELS)
def _load_classifier(path: str, changed: int) -> Classifier:
    """Returns the model; a file that was `changed` at another time is loaded again."""
    return Classifier(LoadedModel(path))


@st.cache_resource(show_spinner="Loading the face detector ...", ttl=_RETRY)
def load_detector(name: str) -> tuple[detectors.Detector, str]:
    """Returns a detector and '', or `FullImage` and why the detector is not available."""
    try:
        return detectors.create(name), ""
    except (OSError, ImportError) as error:
        return detectors.FullImage(), str(error)
