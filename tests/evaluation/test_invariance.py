"""Tests that the checks pass if predictions depend only on the faces, and detect planted defects."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import script

from fer_jax.evaluation import invariance

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), np.uint8)
WEIGHTS = np.random.default_rng(1).normal(size=(36, 7)).astype(np.float32)
CALLS = np.random.default_rng(2)


def prepare(images, affine):
    return images.astype(jnp.float32) / 255


def sound(weights, images, affine):
    return prepare(images, affine).reshape(len(images), -1) @ weights


def batch_norm(weights, images, affine):
    """Normalizes faces with batch statistics, which do not depend on the order within a batch."""
    x = prepare(images, affine).reshape(len(images), -1)
    norm = nn.BatchNorm(use_running_average=False, use_bias=False, use_scale=False)
    variables = norm.init(jax.random.key(0), x)
    return norm.apply(variables, x, mutable=["batch_stats"])[0] @ weights


def by_place(weights, images, affine):
    return sound(weights, images, affine) + jnp.eye(7)[jnp.arange(len(images)) % 7]


def by_call(weights, images, affine):
    noise = jax.pure_callback(lambda: np.float32(CALLS.normal()), jax.ShapeDtypeStruct((), np.float32))
    return sound(weights, images, affine) * noise


FAILED = {sound: set(), batch_norm: {"batch size"}, by_place: {"batch size", "order"}}
FAILED[by_call] = {"run", "batch size", "order"}


@pytest.mark.parametrize("forward", FAILED)
def test_what_predictions_depend_on_is_found(forward):
    checks = list(invariance.check_predictions(forward, WEIGHTS, IMAGES))
    assert {check.name for check in checks} == {"run", "batch size", "order"}
    assert {check.name for check in checks if not check.passed} == FAILED[forward]


def test_deviation_and_changed_classes_by_hand():
    reference = np.array([[0.6, 0.4], [0.500001, 0.499999], [0.1, 0.9]])
    moved = np.array([[0.4, 0.6], [0.499999, 0.500001], [0.1, 0.9]])
    check = invariance.compare("order", "a and b", reference, moved)
    assert check.deviation == pytest.approx(0.2) and check.changed == 1 and not check.passed
    # Ties may be broken either way.
    check = invariance.compare("order", "a and b", reference[1:], moved[1:])
    assert check.deviation == pytest.approx(2e-6) and check.changed == 0 and check.passed
    assert str(check).endswith("2.0e-06        0  ok")


def test_the_transform_is_compared_bit_by_bit():
    assert invariance.check_transform(prepare, IMAGES, IMAGES.copy()).passed
    other = IMAGES.copy()
    other[3, 2, 1] ^= 1
    check = invariance.check_transform(prepare, IMAGES, other)
    assert not check.passed and check.deviation == pytest.approx(1 / 255, rel=1e-4)
    # A function that changes each time it is compiled.
    calls = iter((1.0, 1.0 + 1e-6))
    assert not invariance.check_transform(lambda x, a: prepare(x, a) * next(calls), IMAGES, IMAGES).passed


DEVICES = """
import numpy as np, jax.numpy as jnp
from fer_jax.evaluation import invariance
invariance.BATCH_SIZES = ()
images = np.random.default_rng(0).integers(0, 256, (38, 6, 6, 1), np.uint8)
weights = np.random.default_rng(1).normal(size=(36, 7)).astype(np.float32)
def sound(weights, images, affine):
    return images.reshape(len(images), -1).astype(jnp.float32) / 255 @ weights
def planted(weights, images, affine):
    return sound(weights, images, affine) + jnp.eye(7)[0] * (len(images) > 38)
for forward in (sound, planted):
    for check in invariance.check_predictions(forward, weights, images):
        print(check.name, check.compared, check.passed, sep=",")
"""


def test_devices_are_compared(forked):
    """38 faces divide evenly among two devices; padding for three or more reveals the defect."""
    (process,) = forked("python", [DEVICES], devices=8)
    assert process.returncode == 0, process.stderr[-3000:]
    lines = [line.split(",") for line in process.stdout.splitlines()]
    devices = [(compared, passed) for name, compared, passed in lines if name == "devices"]
    names = [f"{number} and 1" for number in range(2, 9)]
    assert devices == [(name, "True") for name in names] + [(name, str(name == "2 and 1")) for name in names]


def test_the_command_ends_with_the_verdict(tiny_run, tiny_data, tmp_path, capsys, monkeypatch):
    main = script("check_invariance").main
    arguments = ["--data", str(tiny_data), "--limit", "9", "--workdir"]
    assert main([*arguments, str(tiny_run)]) == 0
    printed = capsys.readouterr().out
    assert "on 9 faces of validation, devices: 1" in printed and "FAILED" not in printed
    assert printed.count("  ok\n") == 5 and "the number of devices was not varied" in printed
    failed = invariance.Check("order", "shuffled and in order", 2e-5)
    monkeypatch.setattr(invariance, "check_predictions", lambda *args, **kwargs: iter([failed]))
    assert main([*arguments, str(tiny_run)]) == 1
    printed = capsys.readouterr().out
    assert "2.0e-05        0  FAILED" in printed and "predictions depend on: order" in printed
    assert main([*arguments, str(tmp_path)]) == 2
    assert f"{tmp_path / 'best.safetensors'} does not exist" in capsys.readouterr().err
