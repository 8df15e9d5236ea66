"""Tests ImageNet weights: real ones on photographs, their initialization of models, and runs."""

import functools
import importlib
import json

import jax
import numpy as np
import PIL.Image
import pytest
from helpers import tiny_config

from configs.default import get_config
from fer_jax import models, runtime
from fer_jax.data import augment, preprocessing
from fer_jax.models import layers
from fer_jax.pretrained import download, imagenet
from fer_jax.pretrained.imagenet import Pretrained, initialize
from fer_jax.pretrained.weights_file import load_weights
from fer_jax.training import build
from fer_jax.training.train import train_and_evaluate

FILES = {
    "efficientnet_lite0": ("timm_tf", "efficientnet_lite0.safetensors"),
    "efficientnet_lite2": ("timm_tf", "efficientnet_lite2.safetensors"),
    "mobilenet_v2": ("keras", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"),
    "mobilenet_v3_small": ("keras", "weights_mobilenet_v3_small_224_1.0_float.h5"),
}
B0 = "efficientnet_b0_partial.safetensors"
B0_ABSENT = ["blocks.6.0.conv_pwl.weight", "conv_head.weight"]
B4 = "efficientnet_b4_partial.safetensors"
B4_ABSENT = ["blocks.6.1.conv_pw.weight", "blocks.6.1.conv_pwl.weight"]
# Photographs and their ImageNet classes.
LABELS = {
    "grace_hopper.png": {652},  # military uniform
    "cat.png": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "parrot.jpg": {88},  # macaw
    "hot_dog.jpg": {934},
}


@pytest.fixture(scope="module")
def assets(shared_dir):
    folder = shared_dir / "assets"
    if not (folder / "weights").is_dir():
        pytest.skip("needs real ImageNet weights in ../shared/assets/weights")
    return folder


@pytest.mark.parametrize("model", sorted(FILES))
def test_real_weights_know_the_photographs(model, assets):
    ecosystem, file = FILES[model]
    found = imagenet.convert(model, ecosystem, assets / "weights" / file, with_head=True)
    network = models.create(model, imagenet.CLASSES, **found.metadata["conventions"])
    size = found.metadata["resolution"]
    forward = jax.jit(
        preprocessing.make_forward(network, size=size, channels=3, **found.metadata["preprocess"])
    )
    for name, classes in LABELS.items():
        image = PIL.Image.open(assets / "photos" / name).convert("RGB").resize((256, 256))
        logits = forward(found.variables, np.asarray(image)[None], augment.identity_affine(1))
        assert int(np.argmax(logits)) in classes, name


def test_a_partial_file_names_what_is_absent(assets):
    path = assets / "weights" / B4
    with pytest.raises(ValueError, match="missing: " + ", ".join(B4_ABSENT)):
        imagenet.convert("efficientnet_b4", "timm", path)
    found = imagenet.convert("efficientnet_b4", "timm", path, absent=B4_ABSENT)
    assert found.metadata["missing"] == ["params/block_31/expand/kernel", "params/block_31/project/kernel"]


def test_a_partial_file_of_tensorflow_s_weights_brings_their_conventions(assets):
    found = imagenet.convert("efficientnet_b0", "timm_tf", assets / "weights" / B0, absent=B0_ABSENT)
    assert found.metadata["missing"] == ["params/block_15/project/kernel", "params/top/kernel"]
    assert found.metadata["conventions"] == {"padding": "same", "epsilon": 1e-3}
    assert found.metadata["preprocess"] == COLOURS | {"interpolation": "bicubic"}


# -------------------- into a model --------------------

COLOURS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "interpolation": "bilinear"}
CAFFE = {"mean": [0.485, 0.458, 0.408], "std": [1 / 255] * 3, "interpolation": "bilinear"}


def drawn_variables(network, channels, seed=1):
    """Returns random variables at the scale of trained ones, with positive variances."""
    shapes = models.variable_shapes(network, (32, 32, channels))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes["params"])
    stats = shapes.get("batch_stats", {})
    stats = jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), stats)
    return {"params": params, "batch_stats": stats}


@functools.cache
def random_variables(**kwargs):
    return drawn_variables(models.create("mobilenet_v3_small", **kwargs), 3, seed=0)


def pretrained():
    """Returns weights without the head, each different from the number in `random_variables`."""
    kept = jax.tree.map(lambda x: x + 1, random_variables())
    del kept["params"]["head"]
    return Pretrained(kept, {"file": "some.h5", "missing": [], "preprocess": COLOURS})


def test_the_trunk_is_taken_and_the_head_stays():
    theirs = pretrained()
    found = initialize(random_variables(), theirs)
    jax.tree.map(np.testing.assert_array_equal, found["params"]["head"], random_variables()["params"]["head"])
    rest = {part: value for part, value in found["params"].items() if part != "head"}
    jax.tree.map(np.testing.assert_array_equal, rest, theirs.variables["params"])
    jax.tree.map(np.testing.assert_array_equal, found["batch_stats"], theirs.variables["batch_stats"])


def as_both_see_it(name, preprocess, **kwargs):
    """Returns (network, variables, faces) for gray faces in three channels, and for one channel."""
    gray = np.random.default_rng(2).uniform(size=(2, 32, 32, 1)).astype(np.float32)
    repeated = (np.repeat(gray, 3, -1) - preprocess["mean"]) / preprocess["std"]
    network, ours = models.create(name), models.create(name, **kwargs)
    variables = drawn_variables(network, 3)
    converted = Pretrained(variables, {"file": "some.h5", "missing": [], "preprocess": preprocess})
    found = initialize(drawn_variables(ours, 1), converted)
    found["params"]["head"] = variables["params"]["head"]  # which is never ported
    config = get_config()
    arguments = build.preprocess(config, {"preprocess": preprocess})
    own = (gray - arguments["mean"]) / arguments["std"]
    return (network, variables, np.float32(repeated)), (ours, found, np.float32(own))


def output_of(layer, network, variables, x):
    """Returns the output of a top-level layer; the compiler removes later layers."""

    def run(variables, x):
        take = {"capture_intermediates": lambda module, _: module.name == layer, "mutable": ["intermediates"]}
        return network.apply(variables, x, **take)[1]["intermediates"][layer]["__call__"][0]

    return np.asarray(jax.jit(run, compiler_options=runtime.run_once_options())(variables, x))


@pytest.mark.parametrize(
    ("name", "layer", "preprocess"),
    [
        ("mobilenet_v3_small", "stem_norm", COLOURS),
        ("vgg16", "conv_0", CAFFE),
        ("vgg16_bn", "norm_0", COLOURS),
    ],
)
def test_a_stem_with_one_channel_equals_the_original_on_gray_faces(name, layer, preprocess):
    """The border differs, because zero padding after normalization is another gray level in each color."""
    original, ours = as_both_see_it(name, preprocess)
    expected, found = output_of(layer, *original), output_of(layer, *ours)
    inside = np.s_[:, 1:-1, 1:-1]
    assert np.abs(found - expected)[inside].max() <= 1e-5 * np.abs(expected).max()


def test_an_adapter_repeats_grey_as_the_original_expects_it():
    original, ours = as_both_see_it("mobilenet_v3_small", COLOURS, adapter="rgb")
    expected, found = (
        np.asarray(jax.jit(network.apply, compiler_options=runtime.run_once_options())(variables, x))
        for network, variables, x in (original, ours)
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_an_adapter_from_colours_hands_them_on():
    found = initialize(random_variables(adapter="rgb"), pretrained())["params"]["adapter"]
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(layers.Conv(3).apply({"params": found}, x), x)


def test_arrays_that_do_not_fit_are_named():
    theirs = pretrained()
    theirs.variables["params"]["stem"] = {"kernel": np.zeros((5, 5, 3, 16), np.float32)}
    with pytest.raises(ValueError, match=r"the weights of some.h5 do not fit the model: params/stem/kernel"):
        initialize(random_variables(), theirs)


def test_what_the_file_lacks_stays_random_and_nothing_else():
    theirs = pretrained()
    del theirs.variables["params"]["hidden"]["bias"]
    with pytest.raises(ValueError, match="params/hidden/bias missing"):
        initialize(random_variables(), theirs)
    theirs.metadata["missing"] = ["params/hidden/bias"]
    found = initialize(random_variables(), theirs)
    np.testing.assert_array_equal(
        found["params"]["hidden"]["bias"], random_variables()["params"]["hidden"]["bias"]
    )


# -------------------- in a run --------------------


def test_offline_a_run_says_which_file_to_put_where(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    config = importlib.import_module("configs.effnet_b0").get_config()
    config.data.dir = str(tiny_data)
    target = tmp_path / "cache" / "timm_tf" / "efficientnet_b0" / "model.safetensors"
    with pytest.raises(download.DownloadError) as caught:
        train_and_evaluate(config, tmp_path / "run")
    ways = f"copy it to {target} (about 21 MB), or train from scratch with --config.init.weights=none"
    assert str(caught.value).endswith(ways) and "(no connection): " in str(caught.value)


MIB = 2**20
# Bytes of torchvision's files, and of timm's networks as safetensors.
FILE_SIZES = {
    ("efficientnet_b0", "torchvision"): 20.451 * MIB,
    ("efficientnet_b2", "torchvision"): 35.174 * MIB,
    ("efficientnet_b4", "torchvision"): 74.489 * MIB,
    ("mobilenet_v2", "torchvision"): 13.598 * MIB,
    ("mobilenet_v3_small", "torchvision"): 9.829 * MIB,
    ("resnet18", "torchvision"): 44.661 * MIB,
    ("vgg16", "torchvision"): 527.796 * MIB,
    ("vgg16_bn", "torchvision"): 527.866 * MIB,
    ("efficientnet_b0", "timm_tf"): 21_355_344,
    ("efficientnet_lite0", "timm_tf"): 18_802_816,
    ("efficientnet_lite2", "timm_tf"): 24_635_736,
}


@pytest.mark.parametrize(("model", "ecosystem"), FILE_SIZES)
def test_how_large_a_file_is_said_to_be(model, ecosystem, monkeypatch):
    asked = {}

    def fetch(url, **kwargs):
        asked.update(kwargs)
        raise download.DownloadError(url)

    monkeypatch.setattr(download, "fetch", fetch)
    with pytest.raises(download.DownloadError):
        imagenet.convert(model, ecosystem)
    assert asked["megabytes"] == pytest.approx(FILE_SIZES[model, ecosystem] / 1e6, rel=0.01)


def test_a_run_starts_from_a_ported_file_and_takes_its_preprocessing(tiny_data, tmp_path, assets):
    script = importlib.import_module("scripts.port_weights")
    ecosystem, name = FILES["mobilenet_v3_small"]
    file = assets / "weights" / name
    words = f"--model mobilenet_v3_small --from {ecosystem} --file {file} --out {tmp_path}"
    assert script.main(words.split()) == 0
    path = tmp_path / "mobilenet_v3_small_keras.safetensors"
    _, facts = load_weights(path)
    assert facts["sha256"] == download.digest(file) and facts["licence"] == "Apache-2.0"
    changes = {"model.name": "mobilenet_v3_small", "model.input_size": 32, "model.channels": 3}
    config = tiny_config(tiny_data, **changes, **{"init.weights": str(path), "train.steps": None})
    config.model.kwargs = {"dropout": 0.0}
    config.stages = ({"epochs": 1.0, "train": "head", "learning_rate": 1e-3},)
    train_and_evaluate(config, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    variables, facts = load_weights(tmp_path / "run")
    assert facts["preprocess"] == {
        "image_size": 32, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3,
        "interpolation": "bilinear", "fill": "reflect",
    }  # fmt: skip
    assert facts["model"]["kwargs"]["padding"] == "same" and facts["model"]["kwargs"]["epsilon"] == 1e-3
    assert facts["pretrained"]["file"] == file.name and report["accuracy"] >= 0
    # Only the head was trained: the trunk and its statistics are those of the file.
    original, _ = load_weights(path)
    for part in original["params"]:
        jax.tree.map(np.testing.assert_array_equal, variables["params"][part], original["params"][part])
    jax.tree.map(np.testing.assert_array_equal, variables["batch_stats"], original["batch_stats"])
