"""Tests without a container engine that what the Dockerfiles copy, install, and start exists."""

import json
import re
import tomllib

import pytest
from helpers import ROOT

from fer_jax import cli
from fer_jax.commands import serve

FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTRUCTIONS = "FROM WORKDIR COPY RUN USER EXPOSE HEALTHCHECK ENV ENTRYPOINT CMD".split()


def read(path):
    """Returns the instructions of a Dockerfile as pairs (keyword, arguments)."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [line.split(maxsplit=1) for line in "\n".join(lines).replace("\\\n", "").splitlines()]


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def steps(request):
    return read(request.param)


def test_both_are_there():
    assert [path.stem for path in FILES] == ["serve", "train_cuda"]


def test_every_instruction_is_known_and_the_first_names_a_version(steps):
    assert {word for word, _ in steps} <= set(INSTRUCTIONS)
    assert re.fullmatch(r"python:3\.\d+-slim", steps[0][1]) and steps[0][0] == "FROM"
    minor = int(steps[0][1].split(".")[1].removesuffix("-slim"))
    assert minor >= int(PROJECT["requires-python"].split(".")[1])


def test_what_is_copied_exists_and_is_not_ignored(steps):
    sources = [name for word, rest in steps if word == "COPY" for name in rest.split()[:-1]]
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(sources) == sorted(kept) and all((ROOT / name).exists() for name in sources)
    readme = PROJECT["readme"], *PROJECT["license-files"]
    assert set(readme) <= set(sources)  # read when building the package


def test_pinned_versions_of_an_extra_are_installed(steps):
    (install,) = [rest for word, rest in steps if word == "RUN" and "pip install" in rest]
    assert "--constraint constraints.txt" in install
    (extra,) = re.findall(r"'\.\[(\w+)\]'", install)
    assert extra in PROJECT["optional-dependencies"]


def test_a_command_is_started_without_a_shell_which_would_keep_signals_from_it(steps):
    entry = json.loads(dict(steps)["ENTRYPOINT"])
    assert entry[0] in PROJECT["scripts"] and set(entry[1:2]) <= set(cli.COMMANDS)


def test_the_service_runs_without_rights_where_its_port_says(monkeypatch):
    steps = dict(read(ROOT / "docker" / "serve.Dockerfile"))
    assert steps["USER"] != "root"
    started = []
    monkeypatch.setattr(serve.common, "run", lambda _, args: started.append(args) or 0)
    assert serve.main(json.loads(steps["ENTRYPOINT"])[2:]) == 0
    (args,) = started
    assert (args.host, str(args.port)) == ("0.0.0.0", steps["EXPOSE"])
    check = steps["HEALTHCHECK"].partition("CMD ")[2]
    compile(json.loads(check)[2], "HEALTHCHECK", "exec")
    assert f":{args.port}/health" in check
