"""Tests ported networks against outputs of the original ones, see originals.py."""

import functools
import json
import re

import h5py
import jax
import numpy as np
import originals
import pytest

from fer_jax import models, runtime
from fer_jax.pretrained import formats, porting, sources
from fer_jax.pretrained.key_map import slots

# The larger networks differ only in their factors and are slow to compile, so each is tested once.
# TensorFlow's padding depends on whether the side is odd.
LARGE = {"efficientnet_b2": "keras", "efficientnet_b4": "timm", "efficientnet_lite2": "timm_tf"}
EVERY_RUN = [(m, e, 97) for m, e in originals.CASES if LARGE.get(m, e) == e]
EVERY_RUN += [(m, e, 64) for m, e in originals.CASES if m not in LARGE and e in ("keras", "timm_tf")]
ALL = [(m, e, s) for m, e in originals.CASES for s in (*originals.SIZES, originals.DENSE_SIZE)]
ALL = [(m, e, s) for m, e, s in ALL if s in originals.SIZES or originals.has_dense_layers(m, s)]


@functools.cache
def about(model, ecosystem):
    """Returns the shapes of the original's arrays, and Keras' numbered names for them."""
    with np.load(originals.REFERENCES) as kept:
        return json.loads(kept[f"{model}/{ecosystem}/arrays"].tobytes())


def expected(model, ecosystem, size):
    with np.load(originals.REFERENCES) as kept:
        prefix = f"{model}/{ecosystem}/{size}/"
        return {key.removeprefix(prefix): kept[key] for key in kept.files if key.startswith(prefix)}


@functools.cache
def arrays_of(model, ecosystem):
    """Returns the original's arrays; VGG16's dense layers, which affect no output here, are zeros."""
    shapes = {key: tuple(shape) for key, shape in about(model, ecosystem)["shapes"].items()}
    return {
        key: np.broadcast_to(np.float32(0), shape) if np.prod(shape) > 1e7 else originals.drawn(key, shape)
        for key, shape in shapes.items()
    }


def shapes_of(model):
    kwargs = {"dense": True} if model.startswith("vgg") else {}
    return models.variable_shapes(models.create(model, originals.CLASSES, **kwargs), (224, 224, 3))


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
        ours = np.asarray(found[what])[:, : value.shape[1]]
        assert ours.shape == value.shape, what
        assert np.abs(ours - value).max() <= 1e-4 * np.abs(value).max(), what


@functools.cache
def program(model, padding, epsilon, dense):
    """Compiled once for each size: libraries with the same conventions share it."""
    kwargs = {"dense": True} if dense else {}
    network = models.create(model, originals.CLASSES, padding=padding, epsilon=epsilon, **kwargs)
    headless = model.startswith("vgg") and not dense

    def run(variables, x):
        found = {"features": network.apply(variables, x, features=True)}
        if headless:
            return found
        head = variables["params"]["head"]
        return found | {"logits": found["features"] @ head["kernel"] + head["bias"]}

    return jax.jit(run, compiler_options=runtime.run_once_options())


def answers(model, ecosystem, size, arrays=None):
    source, dense = sources.find(model, ecosystem), originals.has_dense_layers(model, size)
    everything = {"leave_out": ()} if dense else {}
    run = program(model, source.padding, source.epsilon, dense)
    return run(ported(model, ecosystem, arrays, **everything), originals.faces(size))


@pytest.mark.parametrize(("model", "ecosystem", "size"), EVERY_RUN)
def test_a_ported_network_answers_like_the_original(model, ecosystem, size):
    assert_answers(answers(model, ecosystem, size), expected(model, ecosystem, size))


@pytest.mark.originals
@pytest.mark.parametrize(("model", "ecosystem", "size"), ALL)
def test_the_original_answers_like_the_port(model, ecosystem, size):
    """Compares with the original itself: every model, all features, and VGG16's logits."""
    arrays, _, answer = originals.original(model, ecosystem, size)
    reference = answer()
    kept = expected(model, ecosystem, size)
    if size in originals.SIZES:
        assert {k: list(v.shape) for k, v in arrays.items()} == about(model, ecosystem)["shapes"]
        assert kept.keys() == reference.keys()
    else:
        assert reference.keys() == {"features", "logits"}
    assert_answers(reference, kept)
    assert_answers(answers(model, ecosystem, size, arrays), reference)


@pytest.mark.parametrize("model", [m for m, e in originals.CASES if e == "keras"])
def test_keras_numbered_names_are_the_same_arrays(model):
    """`.weights.h5` files number the layers of each kind in the order of the data."""
    arrays, numbered = arrays_of(model, "keras"), about(model, "keras")["numbered"]
    by_number = {number: arrays[key] for number, key in numbered.items()}
    jax.tree.map(np.testing.assert_array_equal, ported(model, "keras", by_number), ported(model, "keras"))


# -------------------- Keras' legacy files --------------------


def mobilenet_v2_of_2018(layer):
    if match := re.fullmatch(r"(?:expanded_conv|block_(\d+))_([a-z]+?)(_BN)?", layer):
        number = match[1] or 0
        start, norm = ("bn", "bn_") if match[3] else ("mobl", "")
        return f"{start}{number}_conv_{number}_{norm}{match[2]}"
    return {"predictions": "Logits"}.get(layer, layer)


def mobilenet_v3_of_2020(layer):
    layer = re.sub(r"^(expanded_conv(?:_\d+)?)_", r"\1/", layer)
    layer = re.sub(r"squeeze_excite_conv", "squeeze_excite/Conv", re.sub(r"_bn$", "/BatchNorm", layer))
    return re.sub("^conv", "Conv", re.sub("^logits", "Logits", layer))


def weight_of_2018(layer, variable):
    depthwise = variable == "kernel" and re.search("depthwise|dwconv", layer)
    return f"{layer}/{'depthwise_' if depthwise else ''}{variable}:0"


def weight_of_2016(layer, variable):
    return f"{layer}_{ {'kernel': 'W', 'bias': 'b'}[variable] }_1:0"


# From the source of tf.keras at the time, and from public listings of the official files.
OLD_NAMES = {
    "vgg16": (lambda layer: layer, weight_of_2016),
    "mobilenet_v2": (mobilenet_v2_of_2018, weight_of_2018),
    "mobilenet_v3_small": (mobilenet_v3_of_2020, weight_of_2018),
    "efficientnet_b0": (lambda layer: layer, weight_of_2018),
}
SOME_NAMES = {
    "mobilenet_v2": {
        "expanded_conv_depthwise": "mobl0_conv_0_depthwise",
        "block_16_project_BN": "bn16_conv_16_bn_project",
        "predictions": "Logits",
    },
    "mobilenet_v3_small": {
        "conv_bn": "Conv/BatchNorm",
        "expanded_conv_depthwise_bn": "expanded_conv/depthwise/BatchNorm",
        "expanded_conv_10_squeeze_excite_conv_1": "expanded_conv_10/squeeze_excite/Conv_1",
    },
}
NORMALIZATION = {"mean": np.zeros(3), "variance": np.ones(3), "count": np.int64(0)}


def write_legacy(path, arrays, model):
    """Writes arrays named LAYER/VARIABLE under their legacy names; returns {new layer name: legacy name}."""
    rename, weight_of = OLD_NAMES[model]
    layers = {"normalization": NORMALIZATION} if model.startswith("efficientnet") else {}
    for key, value in arrays.items():
        layer, variable = key.split("/")
        layers.setdefault(layer, {})[variable] = value
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["input_1", *map(rename, layers)]
        file.create_group("input_1").attrs["weight_names"] = np.zeros(0, "S1")
        for layer, variables in layers.items():
            group = file.require_group(rename(layer))
            names = [weight_of(rename(layer), variable) for variable in variables]
            group.attrs["weight_names"] = names
            for name, value in zip(names, variables.values(), strict=True):
                group[name] = value
    return {layer: rename(layer) for layer in layers}


@pytest.mark.parametrize("model", sorted(OLD_NAMES))
def test_legacy_files_are_taken_by_the_order_of_their_layers(model, tmp_path):
    renamed = write_legacy(tmp_path / "w.h5", arrays_of(model, "keras"), model)
    found = ported(model, "keras", formats.read(tmp_path / "w.h5"))
    jax.tree.map(np.testing.assert_array_equal, found, ported(model, "keras"))
    assert SOME_NAMES.get(model, {}).items() <= renamed.items()


@pytest.mark.originals
@pytest.mark.parametrize("model", sorted(OLD_NAMES))
def test_keras_itself_takes_them_so(model, tmp_path):
    """Loading the legacy file into the network of keras.applications gives the same arrays."""
    network, arrays, _ = originals.keras_network(originals.MODELS[model]["keras"], 64, dense=False)
    write_legacy(tmp_path / "w.h5", arrays, model)
    for weight in network.weights:
        weight.assign(np.zeros(weight.shape))
    network.load_weights(tmp_path / "w.h5")
    for layer in network.layers:
        for weight in layer.weights:
            if layer.name != "normalization":
                np.testing.assert_array_equal(weight, arrays[f"{layer.name}/{weight.name}"])


def test_a_legacy_file_that_differs_is_reported_by_layer(tmp_path):
    arrays = dict(arrays_of("mobilenet_v3_small", "keras"))
    del arrays["expanded_conv_3_depthwise/kernel"]
    arrays["expanded_conv_8_project/kernel"] = np.zeros((1, 1, 288, 97), np.float32)
    arrays["extra/kernel"] = np.zeros((2, 3), np.float32)
    write_legacy(tmp_path / "w.h5", arrays, "mobilenet_v3_small")
    with pytest.raises(porting.WeightsMismatchError) as caught:
        ported("mobilenet_v3_small", "keras", formats.read(tmp_path / "w.h5"))
    assert str(caught.value) == (
        "the weights do not fit mobilenet_v3_small from keras. missing: "
        "expanded_conv_3_depthwise/kernel; unexpected: extra/extra/kernel:0; wrong shape: "
        "expanded_conv_8/project/expanded_conv_8/project/kernel:0 (1, 1, 288, 97) for block_8/"
        "project (1, 1, 288, 96)"
    )


def test_a_partial_legacy_file_is_named_by_todays_names(tmp_path):
    key = "expanded_conv_3_depthwise/kernel"
    arrays = {k: v for k, v in arrays_of("mobilenet_v3_small", "keras").items() if k != key}
    write_legacy(tmp_path / "w.h5", arrays, "mobilenet_v3_small")
    found = ported("mobilenet_v3_small", "keras", formats.read(tmp_path / "w.h5"), absent=[key])
    expected = ported("mobilenet_v3_small", "keras")
    del expected["params"]["block_3"]["depthwise"]
    jax.tree.map(np.testing.assert_array_equal, found, expected)


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
        "the weights do not fit resnet18 from timm. missing: layer1.0.conv1.weight; unexpected: "
        "layer9.weight; wrong shape: fc.bias (3,) for head (10,)"
    )


def test_what_a_partial_file_lacks_is_named_and_nothing_else():
    arrays = dict(arrays_of("resnet18", "timm"))
    key = "layer4.1.conv2.weight"
    with pytest.raises(porting.WeightsMismatchError, match=f"have arrays declared absent: {key}"):
        ported("resnet18", "timm", arrays, absent=[key])
    del arrays[key]
    with pytest.raises(porting.WeightsMismatchError, match=f"missing: {key}"):
        ported("resnet18", "timm", arrays)
    found = ported("resnet18", "timm", arrays, absent=[key])
    assert "conv_1" not in found["params"]["block_7"]


@pytest.mark.parametrize(("ecosystem", "key"), [("timm", "layer9.weight"), ("torchvision", "fc.kernel")])
def test_a_file_cannot_lack_what_the_network_does_not_have(ecosystem, key):
    with pytest.raises(porting.WeightsMismatchError) as caught:
        ported("resnet18", ecosystem, absent=["conv1.weight", key])
    assert str(caught.value) == (f"arrays declared absent that resnet18 does not have in {ecosystem}: {key}")


def test_the_head_is_left_out_by_name():
    found = ported("resnet18", "timm", leave_out=("head",))
    assert "head" not in found["params"]


def test_an_ecosystem_without_the_model():
    with pytest.raises(ValueError, match="'keras' has no ImageNet weights for resnet18; there are: timm"):
        sources.find("resnet18", "keras")
    with pytest.raises(ValueError, match="no ImageNet weights for cnn_relu, only for: efficientnet"):
        sources.find("cnn_relu", "keras")


def test_torch_flattens_channels_first():
    """torch flattens the 7x7x512 features of VGG16 in another order."""
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
