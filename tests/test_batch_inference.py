"""Tests that each image is predicted once, in order, for any batch size, views, and number of devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.special

from fer_jax import batch_inference
from fer_jax.data import transforms

SIZE = 16


class TinyNet(nn.Module):
    """A convolution and a classifier, which depend on the position in the image."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        return nn.Dense(7)(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (37, 12, 12, 1), np.uint8)


@pytest.fixture(scope="module")
def variables():
    return TinyNet().init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 1)))


def forward(variables, images, affine):
    return TinyNet().apply(variables, 4 * transforms.resample(images, affine, SIZE))


def run(images, variables, **kwargs):
    compiled = batch_inference.compile_forward(forward)
    return batch_inference.predict(compiled, variables, images, progress=False, **kwargs)


def crop(image, y, x, side):
    """Returns a square box of `image` resized to SIZE x SIZE by SciPy."""
    scale = side / SIZE
    offset = np.array([y, x]) + scale / 2 - 0.5
    how = {"output_shape": (SIZE, SIZE), "order": 1, "mode": "reflect"}
    return scipy.ndimage.affine_transform(image.astype(np.float64), [scale, scale], offset, **how)


def reference(images, variables, boxes, mirror=False):
    """Returns the mean softmax over boxes (y, x, side) for each image, one by one."""
    result = []
    for image in images[..., 0]:
        views = [crop(image, *box) for box in boxes]
        if mirror:
            views += [view[:, ::-1] for view in views]
        x = np.stack(views)[..., None].astype(np.float32) / 255
        logits = TinyNet().apply(variables, 4 * jnp.asarray(x))
        probs = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
        result.append(probs.mean(axis=0))
    return np.array(result)


def test_single_view(images, variables):
    got = run(images, variables)
    assert got.shape == (37, 7) and got.dtype == np.float64
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-14)
    np.testing.assert_allclose(got, reference(images, variables, [(0, 0, 12)]), atol=1e-5)


def test_flip(images, variables):
    expected = reference(images, variables, [(0, 0, 12)], mirror=True)
    np.testing.assert_allclose(run(images, variables, tta="flip"), expected, atol=1e-5)


def test_ten_crops(images, variables):
    """44/48 of 12 pixels are 11: the corner crops start at 0 and 1, the center crop at 1/2."""
    boxes = [(0, 0, 11), (0, 1, 11), (1, 0, 11), (1, 1, 11), (0.5, 0.5, 11)]
    expected = reference(images, variables, boxes, mirror=True)
    np.testing.assert_allclose(run(images, variables, tta="tencrop"), expected, atol=1e-5)


@pytest.mark.parametrize("tta", ["none", "flip", "tencrop"])
def test_same_predictions_for_every_batch_size(images, variables, tta):
    whole = run(images, variables, tta=tta, batch_size=256)
    for batch_size in (1, 7):
        got = run(images, variables, tta=tta, batch_size=batch_size)
        np.testing.assert_allclose(got, whole, atol=1e-6)
        np.testing.assert_array_equal(got.argmax(axis=1), whole.argmax(axis=1))


def test_one_program_and_every_image_once(images, variables):
    """The last batch is padded, so nothing else is compiled, and the padding is dropped."""
    sizes = []

    def counting(variables, batch, affine):
        sizes.append(batch.shape[0])
        return forward(variables, batch, affine)

    compiled = batch_inference.compile_forward(counting)
    got = batch_inference.predict(compiled, variables, images, batch_size=10, progress=False)
    assert sizes == [10]
    assert len(got) == 37
    # In another order, each image has the same result.
    order = np.random.default_rng(1).permutation(37)
    again = batch_inference.predict(compiled, variables, images[order], batch_size=10, progress=False)
    np.testing.assert_allclose(again, got[order], atol=1e-6)


def test_images_that_stay_on_disk(images, variables):
    class Streamed:
        shape = images.shape

        def __getitem__(self, index):
            assert index.dtype.kind == "i"
            return images[index]

    np.testing.assert_array_equal(run(Streamed(), variables), run(images, variables))


def test_progress_bar(images, variables, capfd):
    compiled = batch_inference.compile_forward(forward)
    batch_inference.predict(compiled, variables, images, batch_size=10)
    assert "predicting: 100%" in capfd.readouterr().err
    batch_inference.predict(compiled, variables, images, batch_size=10, progress=False)
    assert capfd.readouterr().err == ""


def test_bad_input(images, variables):
    with pytest.raises(ValueError, match="'five'; there are: none, flip, tencrop"):
        run(images, variables, tta="five")
    with pytest.raises(ValueError, match="the split is empty"):
        run(images[:0], variables)
    with pytest.raises(ValueError, match="batch size is 0"):
        run(images, variables, batch_size=0)
    broken = jax.tree.map(lambda x: x * np.nan, variables)
    with pytest.raises(ValueError, match="not finite for 37 of 37 images, first for number 0"):
        run(images, broken)


DEVICES = """
import jax, numpy as np
from fer_jax.data import augment, transforms
from fer_jax import batch_inference
def forward(w, images, affine):
    x = transforms.resample(images, affine, 8).reshape(images.shape[0], -1)
    return x @ w
images = np.random.default_rng(0).integers(0, 256, (37, 12, 12, 1), np.uint8)
weights = np.random.default_rng(1).normal(size=(64, 7)).astype(np.float32)
compiled = batch_inference.compile_forward(forward)
probs = batch_inference.predict(compiled, weights, images, batch_size=10, tta="flip", progress=False)
"""


def test_eight_devices_give_the_predictions_of_one(forked, tmp_path):
    exec(DEVICES, one := {})
    save = f"assert jax.local_device_count() == 8; np.save({str(tmp_path / 'eight.npy')!r}, probs)"
    (ran,) = forked("python", [DEVICES + save], devices=8)
    assert ran.returncode == 0, ran.stderr
    assert one["probs"].shape == (37, 7)
    np.testing.assert_allclose(np.load(tmp_path / "eight.npy"), one["probs"], atol=1e-6)
