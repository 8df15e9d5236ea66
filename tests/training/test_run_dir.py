"""Tests the identity of run directories."""

import json

import pytest

from configs.default import get_config
from fer_jax.training import run_dir

HASH = "a" * 64


def config(data_hash=HASH, **changes):
    result = get_config()
    result.update_from_flattened_dict(changes)
    return run_dir.flatten(json.loads(result.to_json_best_effort())) | {"data_hash": data_hash}


def test_a_new_directory_is_marked_and_recognized(tmp_path):
    path = tmp_path / "runs" / "one"
    path.mkdir(parents=True)
    run_dir.check_identity(path, config())
    assert [p.name for p in path.iterdir()] == ["config.json"]
    stored = json.loads((path / "config.json").read_text())
    assert stored["data_hash"] == HASH
    assert stored["optim.learning_rate"] == 0.1 and stored["train.steps"] is None
    (path / "metrics.jsonl").touch()
    run_dir.check_identity(path, config())


def test_a_directory_is_held_by_one_at_a_time(tmp_path):
    path = tmp_path / "runs" / "one"
    with run_dir.exclusive(path):
        with pytest.raises(ValueError, match=f"another process is training in {path}"):
            with run_dir.exclusive(path):
                pass
        assert not list(path.iterdir())
    with run_dir.exclusive(path):
        pass


def test_a_directory_that_cannot_be_written_is_named_with_its_flag(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "file", f"{tmp_path / 'file'} is not a folder"),
        (tmp_path / "file" / "x", "Not a directory"),
    ):
        with pytest.raises(OSError, match=rf"^cannot write to {path} \({reason}\); give another --workdir$"):
            with run_dir.exclusive(path):
                pass

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_dir, "write_json", refuse)
    with pytest.raises(OSError, match=r"\(Permission denied\); give another --workdir$"):
        run_dir.check_identity(tmp_path / "new", config())


@pytest.mark.parametrize("name, read", [("config.json", None), ("summary.json", run_dir.finished_summary)])
@pytest.mark.parametrize("content", [b'{"half', b"\xff\xfe"])
def test_a_damaged_file_is_named(tmp_path, name, read, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged .*: restore it, or move the run directory"):
        read(tmp_path) if read else run_dir.check_identity(tmp_path, config())


def test_another_config_is_refused_with_its_fields(tmp_path):
    run_dir.check_identity(tmp_path, config())
    (tmp_path / "checkpoints" / "50").mkdir(parents=True)
    changes = {"optim.learning_rate": 0.2, "train.steps": 7, "augment.zoom": (0.5, 1.5)}
    changes["model.kwargs"] = {"widths": (1, 2)}
    with pytest.raises(ValueError) as error:
        run_dir.check_identity(tmp_path, config("b" * 64, **changes))
    message = str(error.value)
    assert message.startswith(f"{tmp_path} belongs to a run with another config:\n")
    assert "optim.learning_rate: 0.1 there, 0.2 here" in message
    assert "train.steps: None there, 7 here" in message
    assert "augment.zoom: [1.0, 1.0] there, [0.5, 1.5] here" in message
    assert "model.kwargs.widths" in message and "[1, 2] here" in message
    assert f"data_hash: '{HASH}' there" in message
    assert f"--config.init_from={tmp_path}" in message
    # No other field is named.
    assert message.count(" there, ") == 6
    assert json.loads((tmp_path / "config.json").read_text())["optim.learning_rate"] == 0.1


def test_a_run_without_a_checkpoint_gives_way(tmp_path):
    run_dir.check_identity(tmp_path, config())
    (tmp_path / "checkpoints" / "50.orbax-checkpoint-tmp").mkdir(parents=True)
    run_dir.check_identity(tmp_path, config(seed=1))
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
    (tmp_path / "checkpoints" / "50").mkdir()
    with pytest.raises(ValueError, match="seed: 1 there, 0 here"):
        run_dir.check_identity(tmp_path, config())


def test_what_changes_no_number_may_change(tmp_path):
    (tmp_path / "checkpoints" / "50").mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(config()))
    changes = {"log_every": 3, "data.dir": "elsewhere", "data.num_workers": 2, "checkpoint.keep": 9}
    run_dir.check_identity(tmp_path, config(**changes, parallel="jit"))


def test_a_directory_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is not empty, and not a run of fer_jax"):
        run_dir.check_identity(tmp_path, config())
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_start_that_was_cut_off_can_be_repeated(tmp_path):
    (tmp_path / "config.json.partial").write_text('{"half')
    run_dir.check_identity(tmp_path, config())
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_only_the_first_process_marks_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(run_dir.jax, "process_index", lambda: 1)
    run_dir.check_identity(tmp_path / "run", config())
    assert not (tmp_path / "run").exists()
    # Another process may see the directory while the first one is writing.
    (tmp_path / "checkpoints").mkdir()
    run_dir.check_identity(tmp_path, config())


def test_a_run_is_finished_when_it_says_so(tmp_path):
    assert run_dir.finished_summary(tmp_path) is None
    run_dir.finish(tmp_path, {"steps": 3, "best": {"value": 0.5}})
    assert run_dir.finished_summary(tmp_path) == {"steps": 3, "best": {"value": 0.5}}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_flattening():
    tree = {"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": None}
    assert run_dir.flatten(tree) == {"a.b.c": 1, "a.d": [], "e": {}, "f": None}


def test_a_run_from_before_a_field_is_the_run_with_its_default(tmp_path):
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    old = {field: value for field, value in config().items() if field != "distill.views"}
    (tmp_path / "config.json").write_text(json.dumps(old))
    run_dir.check_identity(tmp_path, config())
    with pytest.raises(ValueError, match="distill.views: None there, 'plain' here"):
        run_dir.check_identity(tmp_path, config(**{"distill.views": "plain"}))


def test_metadata_of_the_first_weights_come_back_or_are_read_again(tmp_path, caplog):
    """Damage to any byte does not change the preprocessing of a resumed run."""
    metadata = {"preprocess": {"mean": [0.5, 0.25], "std": 0.125}, "missing": []}
    run_dir.keep_pretrained(tmp_path, metadata)
    assert run_dir.kept_pretrained(tmp_path) == metadata
    path = tmp_path / "pretrained.json"
    content = path.read_bytes()
    for place in range(len(content)):
        for mask in (1, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= mask
            path.write_bytes(damaged)
            found = run_dir.kept_pretrained(tmp_path)
            assert found is None or found | metadata == found  # with the checksum under another name
    assert f"{path} is damaged: reading the initial weights again" in caplog.messages
    path.write_text(json.dumps(metadata))  # as in older versions
    assert run_dir.kept_pretrained(tmp_path) == metadata
