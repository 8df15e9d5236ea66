"""Tests the program fer-jax: its list of commands, and the help of each command."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, environment, run_python, script

from fer_jax import __version__, cli


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["fer-jax", *words])
    return cli.main()


def test_every_command_is_listed_with_what_it_does(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == run(monkeypatch) == 0
    printed = capsys.readouterr().out
    for name, what in cli.COMMANDS.items():
        assert f"  {name} " in printed and what in printed
    files = {path.stem.replace("_", "-") for path in (ROOT / "fer_jax" / "commands").glob("*.py")}
    assert files - set(cli.COMMANDS) == {"--init--", "common"}


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("train", "app")])
def test_a_command_says_how_it_is_called(name, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, name, "--help")
    assert ended.value.code == 0
    shown, module = capsys.readouterr().out, script(name.replace("-", "_"))
    assert shown.startswith(f"usage: fer-jax {name} ")
    assert f"fer-jax {name}" in module.__doc__ and module.__doc__.strip().splitlines()[0] in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pre"], {"prepare", "predict"}),
        (["--v"], {"--version"}),
        (["predict", "--time"], {"--timeline"}),
        (["predict", "photo.jpg", "--a"], {"--annotate", "--any_rotation"}),
        (["train", "--w"], {"--workdir"}),  # its flags belong to absl
        (["predict", "ph"], set()),  # bash completes file names itself
    ],
)
def test_bash_completes_commands_and_flags(words, expected, monkeypatch, capsys):
    if not (bash := shutil.which("bash")):
        pytest.skip("needs bash: apt install bash")
    assert run(monkeypatch, "completion", "bash") == 0
    script = f"""
      fer-jax() {{ {shlex.quote(sys.executable)} -m fer_jax "$@"; }}
      {capsys.readouterr().out}
      COMP_WORDS=(fer-jax {shlex.join(words)}) COMP_CWORD={len(words)}
      _fer_jax
      printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, env=environment())
    assert set(done.stdout.split()) >= expected and done.stderr == ""
    assert bool(done.stdout.split()) == bool(expected)
    assert all(one.startswith(words[-1]) for one in done.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        "label-errors --out=x --seed=-1",
        "label-errors --out=x --show=-1",
        "predict --camera=-1",
        "predict photo.jpg --every=nan",
        "sweep --out=x --sweep_seed=-1 --grid optim.momentum 0.5",
        "sweep --out=x --image_size=0 --grid optim.momentum 0.5",
    ],
)
def test_a_number_out_of_its_range_is_refused(words, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, *words.split())
    flag, value = re.search(r"(--\w+)=(-1|0|nan)", words).groups()
    assert re.search(rf"argument {flag}: '{value}': expected (int|float), ", capsys.readouterr().err)


def test_a_command_that_is_not_there_is_named(monkeypatch, capsys):
    assert run(monkeypatch, "trian") == 2
    assert "error: unknown command 'trian'; fer-jax --help lists all commands" in capsys.readouterr().err


def test_training_says_how_it_is_called():
    """absl parses the flags of training; they are global in a process."""
    process = run_python("-m", "fer_jax", "train", "-h")
    assert "fer-jax train --config cnn" in process.stdout
    assert "--workdir" in process.stdout and "--config" in process.stdout


def test_the_app_and_the_version_are_told(monkeypatch, capsys):
    assert run(monkeypatch, "app", "--help") == run(monkeypatch, "--version") == 0
    printed = capsys.readouterr().out
    assert "fer-jax app" in printed and __version__ in printed
