"""Tests checkpoints: which are kept, exactness, failures, and damage."""

import errno
import json
import os
import re
import resource
import shutil

import jax
import numpy as np
import pytest
from helpers import assert_trees_equal
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax import models
from fer_jax.pretrained.weights_file import DamagedCheckpointError, load_weights
from fer_jax.training import checkpoints, optim
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.state import create_state

FACTS = {"model": {"name": "cnn_relu", "kwargs": {"widths": [4, 8]}}, "seed": 3, "selection": None}


def tree(seed, size=1000):
    """Returns a state with the kinds of leaves of a TrainState."""
    rng = np.random.default_rng(seed)
    return {
        "step": np.array(seed, np.int32),
        "params": {"kernel": rng.normal(size=(size, 3)).astype(np.float32)},
        "batch_stats": {"mean": rng.normal(size=3).astype(np.float32)},
        "ema": {},
        "rng": rng.integers(0, 2**32, 2, dtype=np.uint32),
    }


def saved(directory, steps, keep=2):
    """Returns a directory with checkpoints {step: selection metric or None}."""
    manager = Checkpoints(directory, keep)
    for step, selection in steps.items():
        manager.save(step, tree(step), {"facts": FACTS, "place": step}, selection)
    manager.close()
    return directory


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Returns a directory with checkpoints of steps 1 and 2, which must not be modified."""
    return saved(tmp_path_factory.mktemp("two") / "checkpoints", {1: 0.5, 2: 0.4})


# -------------------- entire states --------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_train_state_comes_back_bitwise(optimizer, tmp_path):
    """Muon's state has masked nodes for AdamW's parameters."""
    model = models.create("cnn_relu", widths=(4,), hidden=4)
    schedule = optim.learning_rate("cosine", peak=0.1, total_steps=9)
    tx = optim.make_optimizer(optimizer, schedule, weight_decay=0.1, clip_norm=1.0, accumulate=2)
    fresh = create_state(model, tx, input_shape=(8, 8, 1), seed=0, use_ema=True)
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: np.asarray(rng.integers(0, 99, x.shape), x.dtype), fresh)
    extra = {"stream": {"next_batch": 12}, "watch": {"best": None}, "facts": FACTS}
    manager = Checkpoints(tmp_path / "c")
    manager.save(7, state, extra, 0.25)
    manager.close()
    template = jax.tree.map(np.zeros_like, state)
    restored = Checkpoints(tmp_path / "c").restore_newest(lambda _: template)
    assert (restored.step, restored.extra) == (7, extra)
    assert_trees_equal(restored.state, state)


def test_the_newest_and_the_best_are_kept(tmp_path):
    selections = {1: 0.1, 2: 0.9, 3: 0.3, 4: None, 5: 0.9, 6: 0.4, 7: None}
    directory = saved(tmp_path / "c", selections)
    # In a tie, the first is the best.
    assert Checkpoints(directory).steps() == [2, 6, 7]
    # It is kept after a restart, until there is a better one.
    saved(directory, {8: 0.2, 9: None})
    assert Checkpoints(directory).steps() == [2, 8, 9]
    saved(directory, {10: 0.95, 11: None, 12: None}, keep=1)
    assert Checkpoints(directory).steps() == [10, 12]


def test_a_step_that_is_saved_again_keeps_its_checkpoint(tmp_path):
    """The checkpoint always exists, and its new metric determines whether it is kept."""
    directory = saved(tmp_path / "c", {1: 0.5, 2: None})
    manager = Checkpoints(directory)
    manager.save(2, tree(9), {"facts": FACTS, "place": 9}, 0.6)
    assert_trees_equal(manager.restore(2, tree(0)).state, tree(2))
    for step in (3, 4):
        manager.save(step, tree(step), {"facts": FACTS, "place": step}, 0.1)
    manager.close()
    assert Checkpoints(directory).steps() == [2, 3, 4]


def test_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path / "c").restore_newest(lambda _: tree(0)) is None


def test_what_changes_after_save_returns_is_not_in_it(tmp_path):
    state, extra = tree(1, size=100_000), {"facts": {"selection": {"step": 1}}}
    manager = Checkpoints(tmp_path / "c")
    manager.save(1, state, extra)
    for leaf in jax.tree.leaves((state["params"], state["batch_stats"], state["rng"])):
        leaf[...] = 0
    extra["facts"]["selection"] = None
    manager.wait()
    restored = manager.restore_newest(lambda _: tree(0, size=100_000))
    assert_trees_equal(restored.state, tree(1, size=100_000))
    assert restored.extra == {"facts": {"selection": {"step": 1}}}


def test_a_failed_save_is_raised_and_leaves_the_one_before(tmp_path):
    manager = Checkpoints(tmp_path / "c")
    manager.save(1, tree(1), {}, 0.5)
    manager.wait()
    # A limit of 50 kB per file simulates a full disk: both errors come from the kernel, wherever Orbax
    # writes.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(Exception, match="File too large|EFBIG|(?i:errno 27|os error 27)"):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
            manager.save(2, tree(2, size=100_000), {}, 0.6)
            manager.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = Checkpoints(tmp_path / "c")
    assert again.steps() == [1]
    assert_trees_equal(again.restore_newest(lambda _: tree(0)).state, tree(1))


def files_of(step_directory):
    files = sorted(p for p in step_directory.rglob("*") if p.is_file())
    return [p.relative_to(step_directory) for p in files]


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [truncate, os.remove])
def test_any_damage_to_the_newest_is_noticed_or_harmless(two, tmp_path, damage, caplog):
    harmful = set()
    for number, name in enumerate(files_of(two / "2")):
        path = two / "2" / name
        if not path.stat().st_size:
            continue
        directory = shutil.copytree(two, tmp_path / str(number))
        damage(directory / "2" / name)
        caplog.clear()
        manager = Checkpoints(directory)
        restored = manager.restore_newest(lambda _: tree(0))
        # Restored values always equal the saved ones.
        assert_trees_equal(restored.state, tree(restored.step))
        assert restored.extra == {"facts": FACTS, "place": restored.step}
        if restored.step == 1:
            harmful.add(str(name))
            assert "damaged checkpoint" in caplog.text and str(directory / "2") in caplog.text
            # The resumed run can save this step again.
            assert manager.steps() == [1]
            assert (tmp_path / "damaged_checkpoints" / "2").is_dir()
            shutil.rmtree(tmp_path / "damaged_checkpoints")
            manager.save(2, tree(2), {"facts": FACTS, "place": 2}, 0.4)
            manager.wait()
            assert_trees_equal(manager.restore_newest(lambda _: tree(0)).state, tree(2))
        manager.close()
    assert any(name.startswith("state/") for name in harmful), harmful
    assert "extra/metadata" in harmful


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_byte_that_changed_is_noticed_or_harmless(two, tmp_path_factory, data):
    files = [name for name in files_of(two / "2") if (two / "2" / name).stat().st_size]
    name = data.draw(st.sampled_from(files))
    directory = shutil.copytree(two, tmp_path_factory.mktemp("fuzz") / "checkpoints")
    content = bytearray((directory / "2" / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (directory / "2" / name).write_bytes(content)
    manager = Checkpoints(directory)
    restored = manager.restore_newest(lambda _: tree(0))
    manager.close()
    assert_trees_equal(restored.state, tree(restored.step))
    assert restored.extra == {"facts": FACTS, "place": restored.step}
    place = directory.with_name("damaged_checkpoints") if restored.step == 1 else directory
    try:
        loaded, facts = load_weights(place / "2")
    except DamagedCheckpointError as error:
        assert str(place / "2") in str(error)
        return
    assert_trees_equal(loaded, {name: tree(2)[name] for name in ("params", "batch_stats")})
    assert facts == FACTS


def rewrite_json(step_directory, change):
    """Modifies the JSON of a checkpoint, which stays valid."""
    path = step_directory / "extra" / "metadata"
    extra = json.loads(path.read_text())
    change(extra)
    path.write_text(json.dumps(extra))


@pytest.mark.parametrize(
    "change",
    [
        lambda extra: extra.update(place=3),
        lambda extra: extra.pop("place"),
        lambda extra: extra["facts"].update(seed=4),
        lambda extra: extra.pop("checksums"),
        lambda extra: extra.update(checksums=3),
        lambda extra: extra["checksums"].pop("rng"),
    ],
)
def test_values_beside_the_arrays_that_changed_are_noticed(two, tmp_path, change, caplog):
    """Changes and removals of any key are detected, such as the position of the stream."""
    directory = shutil.copytree(two, tmp_path / "c")
    rewrite_json(directory / "2", change)
    assert Checkpoints(directory).restore_newest(lambda _: tree(0)).step == 1
    assert "damaged checkpoint" in caplog.text


def test_a_selection_that_changed_does_not_decide_what_is_kept(tmp_path):
    directory = saved(tmp_path / "c", {1: 0.5, 2: 0.4, 3: 0.3})
    rewrite_json(directory / "3", lambda extra: extra.update(selection=0.9))
    saved(directory, {4: 0.2, 5: 0.1})
    assert Checkpoints(directory).steps() == [1, 4, 5]


def test_a_checkpoint_of_an_older_version_is_restored(two, tmp_path):
    """Older versions stored no checksum of the JSON."""
    directory = shutil.copytree(two, tmp_path / "c")
    rewrite_json(directory / "2", lambda extra: extra["checksums"].pop("extra"))
    restored = Checkpoints(directory).restore_newest(lambda _: tree(0))
    assert (restored.step, restored.extra) == (2, {"facts": FACTS, "place": 2})
    assert load_weights(directory / "2")[1] == FACTS


def test_an_older_checkpoint_without_a_needed_field_is_damaged(two, tmp_path, caplog):
    directory = shutil.copytree(two, tmp_path / "c")
    rewrite_json(directory / "2", lambda extra: extra["checksums"].pop("extra") and extra.pop("place"))
    assert Checkpoints(directory).restore_newest(lambda _: tree(0), ["facts", "place"]).step == 1
    assert "lacks place in its JSON" in caplog.text


def test_values_that_were_swapped_on_disk_are_noticed(two, tmp_path, caplog):
    """A complete checkpoint with other values than saved is neither evaluated nor resumed from."""
    directory = shutil.copytree(two, tmp_path / "c")
    shutil.rmtree(directory / "2" / "state")
    shutil.copytree(directory / "1" / "state", directory / "2" / "state")
    with pytest.raises(DamagedCheckpointError, match="its checksum differs"):
        load_weights(directory / "2")
    assert Checkpoints(directory).restore_newest(lambda _: tree(0)).step == 1
    assert "its checksum differs" in caplog.text


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), PermissionError(errno.EACCES, "no"), MemoryError()]
)
def test_trouble_of_the_machine_is_not_damage(two, tmp_path, monkeypatch, error):
    directory = shutil.copytree(two, tmp_path / "c")
    manager = Checkpoints(directory)

    def restore(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(manager._manager, "restore", restore)
        with pytest.raises(type(error)):
            manager.restore_newest(lambda _: tree(0))
    assert manager.restore_newest(lambda _: tree(0)).step == 2
    assert not (tmp_path / "damaged_checkpoints").exists()


def test_a_whole_directory_of_damage_is_an_error(two, tmp_path):
    directory = shutil.copytree(two, tmp_path / "c")
    for step in (1, 2):
        shutil.rmtree(directory / str(step) / "state")
    with pytest.raises(DamagedCheckpointError) as error:
        Checkpoints(directory).restore_newest(lambda _: tree(0))
    assert f"every checkpoint in {directory} (steps [1, 2]) is damaged" in str(error.value)
    # Nothing is deleted, so that the user can investigate.
    assert Checkpoints(directory).steps() == [1, 2]


def test_a_save_cut_off_is_no_checkpoint(two, tmp_path):
    directory = shutil.copytree(two, tmp_path / "c")
    shutil.copytree(directory / "2", directory / "3.orbax-checkpoint-tmp")
    manager = Checkpoints(directory)
    assert manager.steps() == [1, 2]
    assert manager.restore_newest(lambda _: tree(0)).step == 2


# -------------------- weights in checkpoints --------------------


@pytest.fixture
def variables():
    kernel = np.random.default_rng(5).normal(size=(3, 3, 1, 4)).astype(np.float32)
    return {
        "params": {"Conv_0": {"kernel": kernel}},
        "batch_stats": {"BatchNorm_0": {"mean": kernel[0, 0, 0]}},
    }


@pytest.mark.parametrize("averaged", [True, False])
def test_one_step_of_a_run_gives_its_weights(variables, tmp_path, averaged):
    other = jax.tree.map(np.zeros_like, variables)
    state = {**(other if averaged else variables), "ema": variables if averaged else {}}
    state["step"] = np.array(5, np.int32)
    manager = Checkpoints(tmp_path / "checkpoints")
    manager.save(5, state, {"facts": FACTS})
    manager.close()
    loaded, facts = load_weights(tmp_path / "checkpoints" / "5")
    assert_trees_equal(loaded, variables)
    assert facts == FACTS


def test_a_damaged_step_is_an_error(two, tmp_path):
    directory = shutil.copytree(two, tmp_path / "c")
    for path in (directory / "2" / "state").rglob("*"):
        if path.is_file() and path.stat().st_size:
            truncate(path)
    with pytest.raises(DamagedCheckpointError, match=re.escape(str(directory / "2"))):
        load_weights(directory / "2")


def test_the_checksum_is_of_all_leaves():
    first = checkpoints._checksums(tree(1))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree(1)):
        changed = jax.tree.map(np.array, tree(1))
        node = changed
        for key in path[:-1]:
            node = node[key.key]
        value = np.array(leaf)
        value.reshape(-1).view(np.uint8)[-1] ^= 1
        node[path[-1].key] = value
        assert checkpoints._checksums(changed) != first, path
