"""Downloads datasets from Kaggle and the Hugging Face Hub with their own libraries."""

import importlib
from pathlib import Path

from fer_jax.data.sources.record import SourceError


def _from_kaggle(name: str) -> str:
    return importlib.import_module("kagglehub").dataset_download(name)


def _from_hugging_face(name: str) -> str:
    return importlib.import_module("huggingface_hub").snapshot_download(name, repo_type="dataset")


# What a source begins with: the hub's name, a function that downloads a dataset and returns its folder, the
# extra of fer_jax with the library for it, and where that keeps downloads, with the variable that moves them.
HUBS = {
    "kaggle:": ("Kaggle", _from_kaggle, "kaggle", "~/.cache/kagglehub ($KAGGLEHUB_CACHE)"),
    "hf:": ("the Hugging Face Hub", _from_hugging_face, "huggingface", "~/.cache/huggingface ($HF_HOME)"),
}


def fetch(source: str) -> Path:
    """Returns the folder of a dataset such as kaggle:msambare/fer2013, downloading it if it is not cached.

    Raises:
      SourceError: the library is not installed, or the download fails; the message says what to do.
    """
    prefix = source[: source.index(":") + 1]
    (title, download, extra, cache), name = HUBS[prefix], source.removeprefix(prefix)
    if len(name.split("/")) < 2:
        raise SourceError(f"{source}: expected {prefix}OWNER/NAME, as in the address of the dataset's page")
    try:
        return Path(download(name))
    except ImportError as error:
        raise SourceError(
            f"{source} needs the package {error.name}: pip install 'fer_jax[{extra}]'; or download the "
            "dataset manually and give its folder as the source"
        ) from error
    except Exception as error:  # the libraries raise exceptions of other packages
        raise SourceError(
            f"{source} cannot be downloaded from {title} ({type(error).__name__}: {error}): check the "
            "name, the network connection, and whether the dataset requires a login or consent; or download "
            f"it manually and give its folder as the source. Downloads are cached in {cache}"
        ) from error
