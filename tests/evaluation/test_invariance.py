"""The checks pass where predictions depend on the faces alone, and catch what has been planted."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_python, script

from fer_jax.evaluation import invariance

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), np.uint8)
WEIGHTS = np.random.default_rng(1).normal(size=(36, 7)).astype(np.float32)


def prepare(images, affine):
    return images.astype(jnp.float32) / 255


def sound(weights, images, affine):
    return prepare(images, affine).reshape(len(images), -1) @ weights


def by_name(forward):
    checks = list(invariance.check_predictions(forward, WEIGHTS, IMAGES))
    assert {check.name for check in checks} == {"run", "batch size", "order"}
    return {name: all(c.passed for c in checks if c.name == name) for name in ("run", "batch size", "order")}


def test_a_model_of_the_faces_alone_passes():
    assert by_name(sound) == {"run": True, "batch size": True, "order": True}


def test_batch_norm_that_was_left_in_training_is_caught():
    """It normalises a face by the others of its batch; all faces in one batch are in no order."""

    def forward(weights, images, affine):
        x = prepare(images, affine).reshape(len(images), -1)
        norm = nn.BatchNorm(use_running_average=False, use_bias=False, use_scale=False)
        variables = norm.init(jax.random.key(0), x)
        return norm.apply(variables, x, mutable=["batch_stats"])[0] @ weights

    assert by_name(forward) == {"run": True, "batch size": False, "order": True}


def test_a_model_that_looks_at_the_place_in_the_batch_is_caught():
    def forward(weights, images, affine):
        return sound(weights, images, affine) + jnp.eye(7)[jnp.arange(len(images)) % 7]

    found = by_name(forward)
    assert found["run"] and not found["order"] and not found["batch size"]


def test_a_model_that_answers_otherwise_each_time_is_caught():
    calls = np.random.default_rng(2)

    def forward(weights, images, affine):
        shape = jax.ShapeDtypeStruct((), np.float32)
        noise = jax.pure_callback(lambda: np.float32(calls.normal()), shape)
        return sound(weights, images, affine) * noise

    assert not by_name(forward)["run"]


def test_deviation_and_changed_classes_by_hand():
    reference = np.array([[0.6, 0.4], [0.500001, 0.499999], [0.1, 0.9]])
    moved = np.array([[0.4, 0.6], [0.499999, 0.500001], [0.1, 0.9]])
    check = invariance.compare("order", "a and b", reference, moved)
    assert check.deviation == pytest.approx(0.2) and check.changed == 1 and not check.passed
    # What lay between equals may fall either way.
    check = invariance.compare("order", "a and b", reference[1:], moved[1:])
    assert check.deviation == pytest.approx(2e-6) and check.changed == 0 and check.passed
    assert str(check).endswith("2.0e-06        0  ok")


def test_the_transform_is_compared_bit_by_bit():
    assert invariance.check_transform(prepare, IMAGES, IMAGES.copy()).passed
    other = IMAGES.copy()
    other[3, 2, 1] ^= 1
    check = invariance.check_transform(prepare, IMAGES, other)
    assert not check.passed and check.deviation == pytest.approx(1 / 255, rel=1e-4)
    # A transform that draws anew whenever it is compiled.
    calls = iter((1.0, 1.0 + 1e-6))
    assert not invariance.check_transform(lambda x, a: prepare(x, a) * next(calls), IMAGES, IMAGES).passed


DEVICES = """
import numpy as np, jax.numpy as jnp
from fer_jax.evaluation import invariance
images = np.random.default_rng(0).integers(0, 256, (38, 6, 6, 1), np.uint8)
weights = np.random.default_rng(1).normal(size=(36, 7)).astype(np.float32)
def sound(weights, images, affine):
    return images.reshape(len(images), -1).astype(jnp.float32) / 255 @ weights
def planted(weights, images, affine):
    return sound(weights, images, affine) + jnp.eye(7)[0] * (len(images) > 38)
for forward in (sound, planted):
    for check in invariance.check_predictions(forward, weights, images, batch_sizes=()):
        print(check.name, check.compared, check.passed, sep=",")
"""


def test_devices_are_compared():
    """38 faces divide among two devices and are filled up for three and more, where the defect shows."""
    process = run_python("-c", DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    assert process.returncode == 0, process.stderr[-3000:]
    lines = [line.split(",") for line in process.stdout.splitlines()]
    devices = [(compared, passed) for name, compared, passed in lines if name == "devices"]
    names = [f"{number} and 1" for number in range(2, 9)]
    assert devices == [(name, "True") for name in names] + [(name, str(name == "2 and 1")) for name in names]


@pytest.fixture(scope="module")
def program():
    return script("check_invariance")


def test_the_script_ends_with_the_verdict(program, tiny_run, tiny_data, capsys, monkeypatch):
    arguments = ["--workdir", str(tiny_run), "--data", str(tiny_data), "--limit", "9"]
    assert program.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "on 9 faces of validation, devices: 1" in printed and "FAILED" not in printed
    assert printed.count("  ok\n") == 5 and "their number matters was not checked" in printed
    failed = invariance.Check("order", "shuffled and in order", 2e-5)
    monkeypatch.setattr(invariance, "check_predictions", lambda *args, **kwargs: iter([failed]))
    assert program.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "2.0e-05        0  FAILED" in printed and "predictions depend on: order" in printed


def test_the_script_complains(program, tiny_data, tmp_path, capsys):
    assert program.main(["--workdir", str(tmp_path), "--data", str(tiny_data)]) == 2
    assert f"there is no {tmp_path / 'best.safetensors'}" in capsys.readouterr().err
