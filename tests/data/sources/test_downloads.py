"""Tests datasets from Kaggle and the Hugging Face Hub, with fakes of their libraries."""

import sys
import types

import pytest

from fer_jax.data.sources.recognize import open_source
from fer_jax.data.sources.record import SourceError

LIBRARIES = {"kaggle": ("kagglehub", "dataset_download"), "hf": ("huggingface_hub", "snapshot_download")}
ASKED = {"kaggle": ("someone/faces", {}), "hf": ("someone/faces", {"repo_type": "dataset"})}


@pytest.fixture
def install(monkeypatch):
    """Returns install(hub, download), which replaces the library's function."""

    def install(hub, download):
        package, function = LIBRARIES[hub]
        library = types.ModuleType(package)
        setattr(library, function, download)
        monkeypatch.setitem(sys.modules, package, library)

    return install


@pytest.mark.parametrize("hub", LIBRARIES)
def test_what_is_downloaded_is_recognized_as_if_it_were_given(hub, install, write_images):
    root, asked = write_images(["train/happy/a.png", "test/sad/b.png"]), []

    def download(name, **arguments):
        asked.append((name, arguments))
        return str(root)

    install(hub, download)
    source = open_source(f"{hub}:someone/faces")
    assert [(record.split, record.label) for record in source.records()] == [("test", 4), ("train", 3)]
    assert (source.path, source.kind, asked) == (f"{hub}:someone/faces", "split_folders", [ASKED[hub]])
    assert source.notes[0] == f"downloaded to {root}"


@pytest.mark.parametrize(("hub", "cache"), [("kaggle", "kagglehub"), ("hf", "huggingface")])
def test_without_a_network_the_message_says_where_the_cache_is_and_what_else_to_do(hub, cache, install):
    def download(name, **arguments):
        raise ConnectionError("no route to host")

    install(hub, download)
    with pytest.raises(SourceError) as error:
        open_source(f"{hub}:someone/faces")
    text = str(error.value)
    assert text.startswith(f"{hub}:someone/faces cannot be downloaded from ")
    assert "(ConnectionError: no route to host)" in text and f"cached in ~/.cache/{cache} ($" in text
    assert "give its folder as the source" in text


@pytest.mark.parametrize(("hub", "extra"), [("kaggle", "kaggle"), ("hf", "huggingface")])
def test_without_its_library_the_message_says_what_to_install(hub, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, LIBRARIES[hub][0], None)
    with pytest.raises(
        SourceError, match=rf"pip install 'fer_jax\[{extra}\]'; or download the dataset manually"
    ):
        open_source(f"{hub}:someone/faces")
    with pytest.raises(SourceError, match=f"{hub}:faces: expected {hub}:OWNER/NAME"):
        open_source(f"{hub}:faces")
