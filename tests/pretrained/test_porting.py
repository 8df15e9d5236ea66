"""Ported networks against what the original ones answer, see originals.py."""

import functools
import json

import jax
import numpy as np
import originals
import pytest

from fer_jax import models, platform
from fer_jax.pretrained import porting, sources
from fer_jax.pretrained.naming import slots

# The larger networks are the smaller ones with other numbers, and take long to compile. Keras' padding
# depends on whether a side is odd.
LARGE = ("efficientnet_b2", "efficientnet_b4")
EVERY_RUN = [(m, e, 97) for m, e in originals.CASES if m not in LARGE]
EVERY_RUN += [(m, e, 64) for m, e in originals.CASES if m not in LARGE and e == "keras"]
ALL = [(m, e, s) for m, e in originals.CASES for s in originals.SIZES]


@functools.cache
def about(model, ecosystem):
    """Shapes of the original's arrays, and Keras' numbered names for them."""
    with np.load(originals.REFERENCES) as kept:
        return json.loads(kept[f"{model}/{ecosystem}/arrays"].tobytes())


def expected(model, ecosystem, size):
    with np.load(originals.REFERENCES) as kept:
        prefix = f"{model}/{ecosystem}/{size}/"
        return {key.removeprefix(prefix): kept[key] for key in kept.files if key.startswith(prefix)}


@functools.cache
def arrays_of(model, ecosystem):
    """The original's arrays; VGG16's dense layers, which no answer here depends on, are zeros."""
    shapes = {key: tuple(shape) for key, shape in about(model, ecosystem)["shapes"].items()}
    return {
        key: np.broadcast_to(np.float32(0), shape) if np.prod(shape) > 1e7 else originals.drawn(key, shape)
        for key, shape in shapes.items()
    }


@functools.cache
def shapes_of(model):
    kwargs = {"dense": True} if model.startswith("vgg") else {}
    network = models.create(model, originals.CLASSES, **kwargs)
    face = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    return jax.eval_shape(network.init, jax.random.key(0), face)


def ported(model, ecosystem, arrays=None, **kwargs):
    left_out = ("hidden_0", "hidden_1", "head") if model.startswith("vgg") else ()
    return porting.port(
        model,
        ecosystem,
        arrays or arrays_of(model, ecosystem),
        shapes_of(model),
        **{"leave_out": left_out, "bgr": sources.find(model, ecosystem).bgr} | kwargs,
    )


def assert_answers(found, reference):
    for what, value in reference.items():
        ours = np.asarray(found[what])[:, : originals.KEPT_FEATURES]
        assert np.abs(ours - value).max() <= 1e-4 * np.abs(value).max(), what


def answers(model, ecosystem, size):
    source = sources.find(model, ecosystem)
    network = models.create(model, originals.CLASSES, padding=source.padding, epsilon=source.epsilon)

    def run(variables, x):
        found = {"features": network.apply(variables, x, features=True)}
        return found if model.startswith("vgg") else found | {"logits": network.apply(variables, x)}

    run = jax.jit(run, compiler_options=platform.run_once_options())
    return run(ported(model, ecosystem), originals.faces(size))


@pytest.mark.parametrize(("model", "ecosystem", "size"), EVERY_RUN)
def test_a_ported_network_answers_like_the_original(model, ecosystem, size):
    assert_answers(answers(model, ecosystem, size), expected(model, ecosystem, size))


@pytest.mark.originals
@pytest.mark.parametrize(("model", "ecosystem", "size"), ALL)
def test_the_original_answers_like_the_port(model, ecosystem, size):
    """With the original itself, and the large networks too."""
    for library in {"keras": ("keras",)}.get(ecosystem, ("torch", "torchvision", "timm")):
        pytest.importorskip(library)
    arrays, _, answer = originals.original(model, ecosystem)
    assert {k: list(v.shape) for k, v in arrays.items()} == about(model, ecosystem)["shapes"]
    reference = {what: value[:, : originals.KEPT_FEATURES] for what, value in answer(size).items()}
    assert_answers(expected(model, ecosystem, size), reference)
    assert_answers(answers(model, ecosystem, size), reference)


@pytest.mark.parametrize("model", [m for m, e in originals.CASES if e == "keras"])
def test_keras_numbered_names_are_the_same_arrays(model):
    """`.weights.h5` files number layers of a kind in the order of the data."""
    arrays, numbered = arrays_of(model, "keras"), about(model, "keras")["numbered"]
    by_number = {number: arrays[key] for number, key in numbered.items()}
    jax.tree.map(np.testing.assert_array_equal, ported(model, "keras", by_number), ported(model, "keras"))


@pytest.mark.parametrize(("model", "ecosystem"), originals.CASES)
def test_every_array_has_one_place(model, ecosystem):
    layers = slots(model, ecosystem, shapes_of(model)["params"])
    names = [slot.name for slot in layers]
    assert len(set(names)) == len(names)
    assert len({slot.path for slot in layers}) == len(layers)


def test_what_is_missing_unexpected_and_misshapen_is_named():
    arrays = dict(arrays_of("resnet18", "timm"))
    arrays["layer9.weight"] = arrays.pop("layer1.0.conv1.weight")
    arrays["fc.bias"] = np.zeros(3, np.float32)
    with pytest.raises(porting.WeightsMismatchError) as caught:
        ported("resnet18", "timm", arrays)
    assert str(caught.value) == (
        "the weights are not those of resnet18 in timm. missing: layer1.0.conv1.weight; unexpected: "
        "layer9.weight; wrong shape: fc.bias (3,) for head (10,)"
    )


def test_what_a_partial_file_lacks_is_named_and_nothing_else():
    arrays = dict(arrays_of("resnet18", "timm"))
    key = "layer4.1.conv2.weight"
    with pytest.raises(porting.WeightsMismatchError, match=f"said to lack what they have: {key}"):
        ported("resnet18", "timm", arrays, absent=[key])
    del arrays[key]
    with pytest.raises(porting.WeightsMismatchError, match=f"missing: {key}"):
        ported("resnet18", "timm", arrays)
    found = ported("resnet18", "timm", arrays, absent=[key])
    assert "conv_1" not in found["params"]["block_7"]


def test_the_head_is_left_out_by_name():
    found = ported("resnet18", "timm", leave_out=("head",))
    assert "head" not in found["params"]


def test_an_ecosystem_without_the_model():
    with pytest.raises(ValueError, match="'keras' has no ImageNet weights for resnet18; there are: timm"):
        sources.find("resnet18", "keras")
    with pytest.raises(ValueError, match="there are no ImageNet weights for cnn_relu, but for: efficientnet"):
        sources.find("cnn_relu", "keras")


def test_torch_flattens_channels_first():
    """VGG16's first dense layer sees 7x7x512 maps in another order than here."""
    slot = next(s for s in slots("vgg16", "timm", shapes_of("vgg16")["params"]) if s.path == ("hidden_0",))
    theirs = np.arange(2 * 512 * 7 * 7, dtype=np.float32).reshape(2, 512 * 49)
    maps = np.random.default_rng(0).integers(0, 9, (3, 7, 7, 512)).astype(np.float64)
    ours = porting.converted(theirs, slot, "timm", (25088, 2))
    channels_first = maps.transpose(0, 3, 1, 2).reshape(3, -1) @ theirs.T.astype(np.float64)
    np.testing.assert_allclose(maps.reshape(3, -1) @ ours, channels_first, rtol=1e-6)


def test_sources_name_files_and_licences():
    for source in sources.SOURCES:
        assert source.url.startswith("https://") and source.licence
        assert (source.model, source.ecosystem) in originals.CASES
    assert len(sources.SOURCES) == len(originals.CASES)
