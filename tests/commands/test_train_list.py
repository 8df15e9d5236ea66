"""fer-jax train-list at toy size, most of its trainings within this process."""

import json
import os
import sys

import numpy as np
import pytest
from helpers import call, run_python, run_within, script

from configs.default import augmentation
from fer_jax.training.monitoring import EXIT_PREEMPTED

train_list = script("train_list")


def test_networks_without_weights_are_trained_from_scratch_and_tabled_over_seeds(
    linear_network, plain_trainings, tiny_data, tmp_path, monkeypatch, capsys
):
    def shrink(config):
        config.data.dir = str(tiny_data)
        if config.init.weights == "none":  # as it is trained, not as it is planned
            config.model.name, config.model.kwargs = "linear", {"spread": 5.0}
        config.augment = augmentation("none")
        config.update_from_flattened_dict({"stages": (), "train.steps": 2, "optim.warmup_epochs": 0.0})

    monkeypatch.setenv("FER_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    arguments = f"--out={tmp_path}", "--configs=mobilenet_v3_small", "--seeds", "3", "4"
    code, commands = run_within(monkeypatch, train_list, shrink, *arguments)
    assert code == 0 and [config.seed for _, config in commands.trained] == [3, 4]
    header, _, _, _, *rows = (tmp_path / "results.md").read_text().splitlines()
    assert "cpu" in header and "--configs=mobilenet_v3_small" in header
    reports = [
        json.loads((tmp_path / f"mobilenet_v3_small_seed_{seed}" / "report" / "report.json").read_text())
        for seed in (3, 4)
    ]
    accuracies = [100 * report["accuracy"] for report in reports]
    words = "from scratch (keras's could not be had)"
    for row, seed, accuracy in zip(rows, (3, 4), accuracies, strict=False):
        assert row.startswith(f"| `mobilenet_v3_small_seed_{seed}` | {words} | validation | {accuracy:.2f} (")
    spread = f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}"
    f1 = f"{np.mean([report['macro_f1'] for report in reports]):.3f}"
    assert rows[2] == f"| `mobilenet_v3_small`, 2 seeds, mean ± std | {words} |  | {spread} | {f1} |  |  |"
    assert capsys.readouterr().out.strip().splitlines()[-1] == rows[2]

    # Again: nothing is trained anew. And with other settings the folder is another list's.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert run_within(monkeypatch, train_list, shrink, *arguments)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == before
    code, commands = run_within(
        monkeypatch, train_list, shrink, *arguments, "--", "--config.train.ema_decay=0"
    )
    assert code == 2 and commands.trained == []
    assert "belongs to a run with another configuration" in capsys.readouterr().err


class Answering:
    """In the place of `Commands`: every command ends with one code."""

    def __init__(self, code):
        self.code, self.asked = code, []

    def run(self, *command):
        self.asked.append(command)
        return self.code


def planned(commands, name, out, folder, scratch):
    config = train_list.trainings.load_config(train_list.path_of(name))
    return train_list.plan(commands, name, config, out, folder, scratch)


@pytest.mark.parametrize(
    ("config", "model", "whose"),
    [
        ("effnet_b0", "efficientnet_b0", "timm_tf"),
        ("effnet_lite0", "efficientnet_lite0", "timm_tf"),
        ("effnet_lite2", "efficientnet_lite2", "timm_tf"),
        ("mobilenet_v2", "mobilenet_v2", "keras"),
    ],
)
def test_ported_weights_are_taken_from_their_folder(config, model, whose, tmp_path):
    path = tmp_path / f"{model}_{whose}.safetensors"
    path.touch()
    commands = Answering(1)
    (training,) = planned(commands, config, tmp_path / "out", tmp_path, scratch=False)
    assert config in train_list.CONFIGS
    assert (training.weights, training.words) == (str(path), f"ImageNet, {whose}")
    assert training.workdir == tmp_path / "out" / config and not commands.asked


def test_only_weights_that_no_server_gives_are_done_without(tmp_path):
    obtain = train_list.obtain_weights
    arguments = "mobilenet_v2", "keras", tmp_path
    assert obtain(Answering(os.EX_UNAVAILABLE), *arguments) == "none"
    with pytest.raises(SystemExit, match="error: keras's weights of mobilenet_v2 are at fault, see above"):
        obtain(Answering(1), *arguments)
    with pytest.raises(SystemExit) as stopped:
        obtain(Answering(EXIT_PREEMPTED), *arguments)
    assert stopped.value.code == EXIT_PREEMPTED


def test_a_run_keeps_the_weights_it_began_with(tmp_path):
    """Begun without a network, and gone on with when the weights can be had."""
    (tmp_path / "mobilenet_v2_keras.safetensors").touch()
    (tmp_path / "out" / "mobilenet_v2").mkdir(parents=True)
    (tmp_path / "out" / "mobilenet_v2" / "config.json").write_text('{"init.weights": "none"}')
    (training,) = planned(Answering(1), "mobilenet_v2", tmp_path / "out", tmp_path, scratch=True)
    assert (training.weights, training.words) == ("none", "from scratch (keras's could not be had)")


def test_a_partial_file_is_asked_for(tmp_path):
    arguments = Answering(1), "effnet_b4", tmp_path / "out", tmp_path
    path = tmp_path / "efficientnet_b4_timm.safetensors"
    with pytest.raises(SystemExit, match=f"error: {path} is not there: it is made from a partial file of "):
        list(planned(*arguments, scratch=False))
    path.touch()
    first, second = planned(*arguments, scratch=True)
    assert (first.weights, first.words) == (str(path), "ImageNet, a partial file")
    assert (second.workdir.name, second.weights, second.words) == (
        "effnet_b4_scratch",
        "none",
        "from scratch",
    )


# Instead of training it sends its parent a signal, if it has one, and waits for SIGTERM; or it fails.
STAND_IN = """#!{python}
import os, pathlib, signal, sys

if sys.argv[1] == "-c":
    sys.exit(print("a device"))
workdir = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
workdir.mkdir()
if name := "{signal}":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getppid(), getattr(signal, name))
    signal.sigwait([signal.SIGTERM])
    (workdir / "saved").touch()
    sys.exit(75)
sys.exit(3)
"""
DRIVER = """
import signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
from fer_jax.commands import train_list

train_list.trainings.rehearse = lambda configs: None  # of weights that are empty files
sys.executable = sys.argv.pop(1)
sys.exit(train_list.main())
"""


def run_with_stand_in(folder, signal):
    """The script over two networks, with another program in the place of python."""
    stand_in, driver = folder / "python", folder / "driver.py"
    stand_in.write_text(STAND_IN.format(python=sys.executable, signal=signal))
    stand_in.chmod(0o755)
    driver.write_text(DRIVER)
    for name in ("mobilenet_v2_keras", "resnet18_timm"):
        (folder / f"{name}.safetensors").touch()
    configs = "--configs", "mobilenet_v2", "resnet18"
    (folder / "out").mkdir()
    return run_python(
        driver, stand_in, f"--out={folder / 'out'}", f"--weights={folder}", "--scratch", *configs, timeout=300
    )


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_a_signal_to_stop_reaches_the_training_and_is_no_failure(tmp_path, signal):
    process = run_with_stand_in(tmp_path, signal)
    assert process.returncode == EXIT_PREEMPTED, process.stderr
    assert "mobilenet_v2 is stopped; the same command goes on" in process.stderr
    begun = [path.name for path in (tmp_path / "out").iterdir()]
    assert begun == ["mobilenet_v2"] and (tmp_path / "out" / "mobilenet_v2" / "saved").exists()


def test_a_training_that_fails_has_a_row_of_its_own(tmp_path):
    process = run_with_stand_in(tmp_path, "")
    assert process.returncode == 3, process.stderr
    _, _, header, _, *rows = (tmp_path / "out" / "results.md").read_text().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [len(row) for row in cells] == [len(header.strip("|").split("|"))] * 4
    assert [row[0] for row in cells] == [
        "`mobilenet_v2`",
        "`mobilenet_v2_scratch`",
        "`resnet18`",
        "`resnet18_scratch`",
    ]
    assert {row[2] for row in cells} == {"failed (3)"}


@pytest.mark.parametrize("code", [os.EX_UNAVAILABLE, 1])
def test_port_weights_tells_a_missing_network_from_a_wrong_file(tmp_path, monkeypatch, capsys, code):
    monkeypatch.setenv("FER_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    if code == 1:
        path = tmp_path / "keras" / "mobilenet_v3_small" / "weights_mobilenet_v3_small_224_1.0_float.h5"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"another file")
    with pytest.raises(SystemExit) as ended:
        script("port_weights").main(["--model=mobilenet_v3_small", "--from=keras", f"--out={tmp_path}"])
    assert ended.value.code == code
    assert ("is not the file of" if code == 1 else "cannot be fetched") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("resnet50", "error: --config configs/resnet50.py: there is no "),
        ("effnet_b0:tpu", "configs/effnet_b0.py:tpu: there are gpu, cpu"),
    ],
)
def test_a_config_that_is_not_there_is_refused(config, message, tmp_path, capsys):
    assert call(train_list, f"--out={tmp_path}", "--configs", config) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "workdir", "file", "weights", "words"),
    [
        ("effnet_b0:cpu", "effnet_b0_cpu", "configs/effnet_b0.py:cpu", "efficientnet_b0_timm_tf", "ImageNet"),
        ("cnn", "cnn", "configs/cnn.py", "none", "from scratch"),
        ("cnn_64", "cnn_64", "configs/cnn_64.py", "none", "`cnn_again`"),
    ],
)
def test_any_config_can_be_in_the_list(config, workdir, file, weights, words, tmp_path):
    (tmp_path / "efficientnet_b0_timm_tf.safetensors").touch()
    plan = planned(Answering(1), config, tmp_path / "out", tmp_path, scratch=config == "cnn")
    (training,) = plan
    assert (training.workdir, training.config) == (tmp_path / "out" / workdir, file)
    assert training.words.startswith(words) and weights in training.weights
