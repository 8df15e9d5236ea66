"""Tests the commands, links, and examples in the README and docs/."""

import argparse
import functools
import importlib
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import pytest
from helpers import ROOT, program
from PIL import Image

from fer_jax import cli, models
from fer_jax.inference.media.inputs import SAMPLE
from fer_jax.inference.predictor import Prediction

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


class Parsed(Exception):
    """A command has parsed its arguments."""


def _shell_lines(text: str) -> list[list[str]]:
    """Returns the words of each command in the text's shell blocks, comments removed."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    consoles = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"^\$ (.*\n)", "".join(consoles), re.MULTILINE)  # the rest is output
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = (shlex.split(line.partition(" > ")[0], comments=True) for line in lines)
    return [one for one in words if one]


def _commands() -> list[list[str]]:
    found = [words for page in PAGES for words in _shell_lines(page.read_text())]
    notebook = json.loads((ROOT / "docs/tutorial.ipynb").read_text())
    for cell in notebook["cells"]:
        line = "".join(cell["source"])
        if cell["cell_type"] == "code" and line.startswith("!"):
            found.append(shlex.split(line[1:].split("2>&1")[0]))
    return found


COMMANDS = _commands()
OF_FER_JAX = [words for words in COMMANDS if words[0] == "fer-jax" and words[1] not in ("train", "app")]


@pytest.mark.parametrize("words", OF_FER_JAX, ids=" ".join)
def test_a_documented_command_has_these_arguments(words, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise Parsed

    assert words[1] in cli.COMMANDS
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(Parsed):
        cli.main()


def test_documented_programs_and_configs_exist():
    words = {word for command in COMMANDS for word in command}
    paths = [word for word in words if word.startswith(("scripts/", "benchmarks/", "examples/"))]
    assert paths
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    configs = [word.partition(":") for word in words if word.startswith("configs/")]
    assert configs
    for path, colon, value in configs:
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        module.get_config(*[value] if colon else [])


def test_links_between_pages_lead_somewhere():
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
        if not re.match(r"https?:", target)
    ]
    assert links
    assert [(page.name, target) for page, target in links if not (page.parent / target).exists()] == []


def test_the_readme_is_short_and_its_pictures_are_small():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 200 and len(readme.split()) <= 1800
    pictures = list((ROOT / "docs/pictures").iterdir())
    assert pictures and all(path.stat().st_size < 200_000 for path in pictures)


@pytest.mark.drawn
def test_the_readmes_picture_can_be_drawn(monkeypatch):
    pictures = program("docs/pictures.py")
    unclassified = Prediction(str(SAMPLE), 512, 600, ())
    monkeypatch.setattr(pictures.Predictor, "load", lambda: lambda _: [unclassified])
    assert Image.open(pictures.draw_overview()).size == Image.open(pictures.OUT / "overview.png").size


API = (ROOT / "docs/api.md").read_text()


def _examples(text: str) -> str:
    return "".join(re.findall(r"^```python\n(.*?)^```", text, re.S | re.M))


def test_the_examples_of_the_api_reference_run():
    names = {}
    exec(_examples(API), names)
    assert names["face"].emotion == "neutral" and names["probabilities"].shape == (2, 7)
    assert names["logits"].shape == (2, 7) and len(names["faces"]) == 28
    assert set(names["batch"]) == {"image", "target", "affine", "color", "erase"}
    assert names["position"] == {"next_batch": 1}
    assert float(names["loss"]) > 0 and names["metrics"]["loss"].shape == () and names["head"]
    assert names["low"] <= names["accuracy"] <= names["high"] and (names["kinds"] == 2).all()


def _members(owner: Any, module: str) -> Iterator[tuple[str, ...]]:
    """Yields the public names of a module or class that have docstrings, as autodoc lists them."""
    for name, member in vars(owner).items():
        member = inspect.unwrap(getattr(member, "__func__", member))  # of a class method, or cached
        kinds = type | FunctionType | property | functools.cached_property
        own = inspect.isclass(owner) or getattr(member, "__module__", None) == module
        if own and isinstance(member, kinds) and member.__doc__ and not name.startswith("_"):
            yield (name,)
            if inspect.isclass(member):
                yield from ((name, *path) for path in _members(member, module))


def _documented(section: str) -> Iterator[tuple[str, ...]]:
    """Yields the names that the section's directives document: (function,), (class,) or (class, member)."""
    for kind, target, options in re.findall(r"^\.\. auto(\w+):: (\S+)\n((?:   :.*\n)*)", section, re.M):
        chosen = re.search(":members:(.*)", options)
        if kind == "module":
            found = list(_members(importlib.import_module(target), target))
            asked = chosen[1].replace(",", " ").split() or {path[0] for path in found}
            yield from (path for path in found if path[0] in asked)
            continue
        module, name = target.rsplit(".", 1)
        yield (name,)
        if chosen:
            owner = getattr(importlib.import_module(module), name)
            yield from ((name, *path) for path in _members(owner, module))


def _is_used(path: tuple[str, ...], code: str) -> bool:
    """Returns whether code names a function or class (a network by its key in MODELS), or a member."""
    key = next((key for key, network in models.MODELS.items() if network.__name__ == path[-1]), None)
    pattern = rf"\.{path[-1]}\b" if path[1:] else rf'\b{path[-1]}\b|"{key}"'
    return bool(re.search(pattern, code))


def test_every_name_in_the_api_reference_has_an_example():
    """In its section, or on a page to which its section links."""
    sections = re.split("^## ", API, flags=re.M)[1:]
    names, without = [], []
    for section in sections:
        pages = re.findall(r"\]\((\w+\.md)", section)
        code = _examples(section + "".join((ROOT / "docs" / page).read_text() for page in pages))
        names += (found := list(_documented(section)))
        without += [".".join(path) for path in found if not _is_used(path, code)]
    assert {("Box", "overlap"), ("EfficientNetLite2",), ("variable_shapes",), ("Ranges", "mixes")} <= set(
        names
    )
    assert without == []


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs/index.md").read_text()
    listed = set(re.findall(r"^(\w+)$", index, re.MULTILINE))
    pages = {path.stem for pattern in ("*.md", "*.ipynb") for path in (ROOT / "docs").glob(pattern)}
    assert listed == pages - {"index"}


def test_every_command_is_documented():
    assert set(cli.COMMANDS) - {words[1] for words in COMMANDS if words[0] == "fer-jax"} == set()
