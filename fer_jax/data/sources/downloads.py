"""Downloads datasets from Kaggle and the Hugging Face Hub with their own libraries."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from fer_jax.data.sources.record import SourceError


class _Hub(NamedTuple):
    """A hub of datasets.

    Attributes:
      title: its name.
      package: its library.
      function: function of the library that takes a dataset's name and returns its folder.
      arguments: further arguments of the function.
      extra: extra of fer_jax that installs the library.
      cache: cache folder of the library, and the variable that sets it.
    """

    title: str
    package: str
    function: str
    arguments: dict[str, Any]
    extra: str
    cache: str


HUBS = {
    "kaggle:": _Hub(
        "Kaggle", "kagglehub", "dataset_download", {}, "kaggle", "~/.cache/kagglehub ($KAGGLEHUB_CACHE)"
    ),
    "hf:": _Hub(
        "the Hugging Face Hub",
        "huggingface_hub",
        "snapshot_download",
        {"repo_type": "dataset"},
        "huggingface",
        "~/.cache/huggingface ($HF_HOME)",
    ),
}


def fetch(source: str) -> Path:
    """Returns the folder of a dataset, downloading it if it is not cached.

    Args:
      source: one of `HUBS` and the name of a dataset, such as kaggle:msambare/fer2013.

    Raises:
      SourceError: the library is not installed, or the download fails; the message says what to do.
    """
    prefix = source[: source.index(":") + 1]
    hub, name = HUBS[prefix], source.removeprefix(prefix)
    if len(name.split("/")) < 2:
        raise SourceError(f"{source}: expected {prefix}OWNER/NAME, as in the address of the dataset's page")
    try:
        library = importlib.import_module(hub.package)
    except ImportError as error:
        raise SourceError(
            f"{source} needs the package {hub.package}: pip install 'fer_jax[{hub.extra}]'; or download the "
            "dataset manually and give its folder as the source"
        ) from error
    try:
        return Path(getattr(library, hub.function)(name, **hub.arguments))
    except Exception as error:  # the libraries raise exceptions of other packages
        raise SourceError(
            f"{source} cannot be downloaded from {hub.title} ({type(error).__name__}: {error}): check the "
            "name, the network connection, and whether the dataset requires a login or consent; or download "
            f"it manually and give its folder as the source. Downloads are cached in {hub.cache}"
        ) from error
