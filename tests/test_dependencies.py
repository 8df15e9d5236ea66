"""Tests that all imports are declared in pyproject.toml, and those of the page in a lock file."""

import ast
import importlib.metadata
import json
import re
import sys
import tomllib

from helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("fer_jax", "configs", "scripts", "benchmarks", "examples", "tests")
BY_HAND = {"mediapipe"}  # installed without its dependencies, one of which replaces OpenCV
# May not be installed; the distribution has the name of the module.
NAMES = {"pillow_heif": "pillow-heif", "streamlit_webrtc": "streamlit-webrtc"}


def distribution(requirement: str) -> str:
    """Returns the normalized name in a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def imported(folder: str) -> set[str]:
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module)
    return {name.split(".")[0] for name in found}


def test_every_import_is_of_a_declared_dependency():
    installed, extras = importlib.metadata.packages_distributions(), PROJECT["optional-dependencies"]
    declared = {distribution(one) for one in sum(extras.values(), PROJECT["dependencies"])}
    own = {path.stem for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")} | {*FOLDERS}
    undeclared = {}
    for folder in FOLDERS:
        for name in imported(folder) - sys.stdlib_module_names - own - BY_HAND:
            known = installed.get(name, [NAMES.get(name, name)])
            if declared.isdisjoint(map(distribution, known)):
                undeclared[name] = folder
    assert not undeclared


def test_the_pages_packages_are_locked():
    wanted = json.loads((ROOT / "examples" / "browser" / "package.json").read_text())["dependencies"]
    lock = json.loads((ROOT / "examples" / "browser" / "package-lock.json").read_text())["packages"]
    assert lock.pop("")["dependencies"] == wanted
    assert {f"node_modules/{name}" for name in wanted} <= lock.keys()
    assert all(package["integrity"].startswith("sha512-") for package in lock.values())


def test_ci_installs_the_constraints_versions_by_their_hashes():
    pins = {
        name: dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("constraints.txt", ".ci/requirements.txt")
    }
    versions = {distribution(name): version for name, version in pins["constraints.txt"].items()}
    locked = {distribution(name): version for name, version in pins[".ci/requirements.txt"].items()}
    assert len(locked) > 100 and locked.items() <= versions.items()
    extras = PROJECT["optional-dependencies"]
    needed = {distribution(one) for one in PROJECT["dependencies"] + extras["test"] + extras["types"]}
    assert needed - {"fer-jax", "tensorflow"} <= locked.keys()  # for macOS
    entries = re.split(
        r"^(?=[\w.-]+(?:\[\w+\])?==)", (ROOT / ".ci" / "requirements.txt").read_text(), flags=re.MULTILINE
    )
    assert all("--hash=sha256:" in entry for entry in entries[1:])
