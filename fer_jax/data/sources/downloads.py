"""Downloads datasets from Kaggle and the Hugging Face Hub, through their own libraries."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from fer_jax.data.sources.record import SourceError


class _Hub(NamedTuple):
    """A place that datasets are downloaded from.

    Attributes:
      title: its name.
      package: the library.
      function: of the library, which takes a dataset's name and returns the folder that it is in.
      arguments: of the function, besides the name.
      extra: of fer_jax, which installs the library.
      cache: where the library keeps what it has downloaded, and what moves it.
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
    """Returns the folder of a dataset, downloaded if the library has it not in its cache.

    Args:
      source: one of `HUBS` and the dataset's name there, such as kaggle:msambare/fer2013.

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
            "dataset by hand and give its folder as the source"
        ) from error
    try:
        return Path(getattr(library, hub.function)(name, **hub.arguments))
    except Exception as error:  # the libraries raise those of several others
        raise SourceError(
            f"{source} cannot be downloaded from {hub.title} ({type(error).__name__}: {error}): check the "
            "name, the network, and whether the dataset asks for a login or consent; or download it yourself "
            f"and give its folder as the source. Earlier downloads are in {hub.cache}"
        ) from error
