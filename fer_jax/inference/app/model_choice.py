"""Loads the models and face detectors that the app offers, once for all visitors."""

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
    "yunet": "YuNet (also small and tilted faces)",
    "mediapipe": "MediaPipe (faces close to the camera)",
    "whole": "none: each image is one face",
}
_MAX_MODELS = 4  # kept in memory
_RETRY = 300  # seconds before an unavailable detector is tried again

# Images are processed one at a time, so that memory holds one large image, whatever the number of visitors.
LOCK = threading.Lock()


def models_folder(arguments: Sequence[str]) -> Path | None:
    """Returns the folder of additional models in `fer-jax app -- --models DIR` or $FER_JAX_MODELS, or None.

    Raises:
      ValueError: the arguments are invalid, or the folder does not exist.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--models", default=os.environ.get(MODELS_VARIABLE) or None)
    try:
        known, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}; expected --models DIR") from error
    if others:
        raise ValueError(f"unknown arguments {' '.join(others)}; expected --models DIR")
    if known.models and not Path(known.models).is_dir():
        raise ValueError(
            f"there is no folder {known.models}: give a folder of .safetensors files in --models or "
            f"${MODELS_VARIABLE}"
        )
    return Path(known.models) if known.models else None


def find(folder: Path | None) -> dict[str, str]:
    """Returns the paths of the bundled models and of those in the folder, by name."""
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
    """Returns a model and '', or None and the reason why it cannot be used."""
    try:
        return _load_classifier(path, os.stat(path).st_mtime_ns), ""
    except (OSError, ValueError, DamagedCheckpointError) as error:
        return None, str(error)


@st.cache_resource(show_spinner="Loading the model ...", max_entries=_MAX_MODELS)
def _load_classifier(path: str, changed: int) -> Classifier:
    """Loads a model; cached by path and modification time."""
    return Classifier(LoadedModel(path))


@st.cache_resource(show_spinner="Loading the face detector ...", ttl=_RETRY)
def load_detector(name: str) -> tuple[detectors.Detector, str]:
    """Returns a detector and '', or `FullImage` and the reason why the detector is unavailable."""
    try:
        return detectors.create(name), ""
    except (OSError, ImportError) as error:
        return detectors.FullImage(), str(error)
