"""Exports: other runtimes give the network's numbers, and the files say what they are."""

import collections
import hashlib
import json
import pathlib
import re
import zipfile

import jax
import numpy as np
import pytest
from helpers import ROOT, needed
from PIL import Image
from safetensors import safe_open
from scipy import special

from fer_jax import models, runtime
from fer_jax.data import augment, transforms
from fer_jax.data.emotions import EMOTIONS, class_names
from fer_jax.inference.engines import graphs
from fer_jax.inference.engines.onnx_engine import OnnxEngine
from fer_jax.inference.export import check, export, metadata
from fer_jax.inference.export.program import Program
from fer_jax.pretrained import weights_file
from fer_jax.pretrained.loaded_model import LoadedModel

onnx = needed("onnx", "export")
ort = needed("onnxruntime", "export")
litert = needed("ai_edge_litert.interpreter", "export")

RUNTIMES = ("onnx", "tflite", "stablehlo")
TEMPERATURE = 0.8
CALIBRATION = {"temperature": TEMPERATURE, "split": "validation"}
SHIPPED = ROOT / "fer_jax" / "pretrained" / "cnn_250k_fer2013.safetensors"
ENLARGING = ROOT / "fer_jax" / "pretrained" / "cnn_1m_64_fer2013.safetensors"


def run(path: pathlib.Path, batch: np.ndarray) -> np.ndarray:
    """A file in the runtime that it is for, as that runtime's own documentation has it."""
    if path.suffix == ".onnx":
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, {"faces": batch})[0]
    if path.suffix == ".tflite":
        interpreter = litert.Interpreter(str(path))
        (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(given["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(wanted["index"])
    return np.asarray(jax.export.deserialize(bytearray(path.read_bytes())).call(batch))


@pytest.fixture(scope="module")
def calibrated(tiny_run, tmp_path_factory) -> pathlib.Path:
    """The tiny network's weights with a temperature."""
    path = tmp_path_factory.mktemp("calibrated") / "tiny.safetensors"
    variables, facts = weights_file.load_weights(tiny_run)
    weights_file.export_weights(path, variables, facts | {"calibration": CALIBRATION})
    return path


@pytest.fixture(scope="module")
def program(calibrated) -> Program:
    return Program(LoadedModel(calibrated))


@pytest.fixture(scope="module")
def sample(program, tiny_data) -> check.SampleFaces:
    return check.load_faces(program, tiny_data)


@pytest.fixture(scope="module")
def bare(program) -> tuple[Program, check.SampleFaces]:
    """The network with nothing inside, and synthetic faces."""
    outside = Program(program.trained, preprocessing="outside", softmax="outside")
    return outside, check.load_faces(outside)


@pytest.fixture(scope="module")
def written(program, sample, tmp_path_factory):
    """Every format in float32, with everything inside, and its metadata."""
    folder = tmp_path_factory.mktemp("exports")
    return {
        name: (path := folder / f"tiny.{name}", export.export(program, name, path, "float32", sample))
        for name in export.FORMATS
    }


@pytest.mark.parametrize("name", RUNTIMES)
def test_other_runtimes_give_the_probabilities_of_batches_of_any_size(name, written, faces, expected):
    images, expected = np.tile(faces, (3, 1, 1, 1))[:70], np.tile(expected, (3, 1))[:70]
    expected = special.softmax(np.log(expected) / TEMPERATURE, axis=1)
    for count in (70, 1, 5):
        found = run(written[name][0], images[:count])
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)
        np.testing.assert_array_equal(found.argmax(1), expected[:count].argmax(1))


def test_exported_weights_are_read_like_any_checkpoint(written, program, faces, expected):
    exported = LoadedModel(written["safetensors"][0])
    assert exported.metadata == program.trained.metadata
    np.testing.assert_array_equal(exported.predict(faces, progress=False), expected)


@pytest.fixture(scope="module")
def logits(program, faces):
    """Of the faces normalized by the tiny run's mean and standard deviation."""
    normalized = ((faces / 255 - 0.5) / 0.25).astype(np.float32)
    return normalized, jax.jit(program.trained.model.apply)(program.trained.variables, normalized)


@pytest.mark.parametrize("name", RUNTIMES)
def test_preprocessing_and_softmax_are_left_to_the_caller(name, bare, logits, tmp_path):
    (program, sample), (normalized, expected), path = bare, logits, tmp_path / f"bare.{name}"
    described = export.export(program, name, path, "float32", sample)
    assert described["input"]["dtype"] == "float32" and described["output"]["name"] == "logits"
    np.testing.assert_allclose(run(path, normalized), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
@pytest.mark.parametrize(("precision", "atol", "least"), [("float16", 5e-3, 0.99), ("int8", 0.2, 0.85)])
def test_fewer_bits_give_nearly_the_same(name, precision, atol, least, program, sample, tmp_path):
    path = tmp_path / f"small.{name}"
    facts = export.export(program, name, path, precision, sample)
    found = run(path, sample.images)
    np.testing.assert_allclose(found, sample.expected, atol=atol)
    assert (found.argmax(1) == sample.expected.argmax(1)).mean() >= least
    measured = facts["verified"]
    assert facts["precision"] == precision
    assert measured["accuracy"] == pytest.approx((found.argmax(1) == sample.labels).mean())
    ours = (sample.expected.argmax(1) == sample.labels).mean()
    assert measured["accuracy_change"] == pytest.approx(measured["accuracy"] - ours)
    assert measured["largest_difference"] == pytest.approx(abs(found - sample.expected).max(), rel=1e-3)
    wanted = {"int8": np.int8, "float16": np.float16}[precision]
    assert wanted in _weight_types(path)


def _weight_types(path: pathlib.Path) -> set:
    """The types of a file's arrays of three or more axes: convolutions."""
    if path.suffix == ".onnx":
        arrays = [onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
        return {one.dtype.type for one in arrays if one.ndim > 2}
    details = litert.Interpreter(str(path)).get_tensor_details()
    return {one["dtype"] for one in details if len(one["shape"]) > 2}


def test_an_onnx_graph_is_plain(written):
    model = onnx.load(written["onnx"][0])
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    kinds = collections.Counter(node.op_type for node in model.graph.node)
    # Four convolutions, two dense layers with BatchNorm and bias in their weights, and the input transposed.
    assert (kinds["Conv"], kinds["Gemm"], kinds["MaxPool"], kinds["Transpose"]) == (4, 2, 2, 1)
    # The normalization alone.
    assert (kinds["Mul"], kinds["Sub"], kinds["Div"], kinds["Add"]) == (1, 1, 1, 0)
    (given,), (wanted,) = model.graph.input, model.graph.output
    sizes = [
        [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
        for value in (given, wanted)
    ]
    assert sizes == [["N", 48, 48, 1], ["N", 7]]


def test_a_stablehlo_file_serves_three_platforms_without_custom_calls(written):
    exported = jax.export.deserialize(bytearray(written["stablehlo"][0].read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    # All but the check that a batch has a face, which JAX adds.
    called = re.findall(r"custom_call @(\S+?)\(", exported.mlir_module())
    assert called and set(called) == {"shape_assertion"}


def test_products_in_a_stablehlo_file_are_of_float32_on_every_platform(written):
    text = jax.export.deserialize(bytearray(written["stablehlo"][0].read_bytes())).mlir_module()
    products = re.findall(r"stablehlo\.(?:convolution|dot_general).*", text)
    assert products and all(line.count("HIGHEST") == 2 for line in products)


def test_every_file_says_what_it_is(written, calibrated):
    found = {name: facts for name, (_, facts) in written.items()}
    properties = {one.key: one.value for one in onnx.load(written["onnx"][0]).metadata_props}
    texts = {key: one if isinstance(one, str) else json.dumps(one) for key, one in found["onnx"].items()}
    assert properties == texts and json.loads(properties["labels"]) == list(EMOTIONS)
    with zipfile.ZipFile(written["tflite"][0]) as archive:
        assert archive.read("labels.txt").decode().split() == list(EMOTIONS)
        assert json.loads(archive.read("metadata.json")) == found["tflite"]
    beside = written["stablehlo"][0].with_name("tiny.stablehlo.json")
    assert json.loads(beside.read_text()) == found["stablehlo"]
    with safe_open(written["safetensors"][0], "numpy") as file:
        assert json.loads(file.metadata()["export"]) == found["safetensors"]
    for facts in found.values():
        given = facts["input"]
        assert (given["shape"], given["layout"], given["dtype"]) == (["N", 48, 48, 1], "NHWC", "uint8")
        assert (given["mean"], given["std"], given["fill"]) == (0.5, 0.25, "reflect")
        crops = facts["photographs"]
        assert (crops["side"], crops["channels"], crops["min_roll"]) == (48, 1, 15)
        assert crops["frames"]["mediapipe"] == {"scale": 1.18, "down": -0.09, "min_score": 0.7}
        assert facts["output"]["temperature"] == TEMPERATURE and facts["output"]["temperature_applied"]
        assert facts["checkpoint"]["sha256"] == hashlib.sha256(calibrated.read_bytes()).hexdigest()
        assert facts["licence"]["code"] == "Apache-2.0"
        assert facts["accuracy"]["selection"]["split"] == "validation"
        verified = facts["verified"]
        assert verified["faces"] == 28 and verified["largest_difference"] < 1e-4
        low, high = verified["interval_95"]
        assert low <= verified["accuracy_of_the_network"] <= high
    assert found["onnx"]["versions"]["opset"] == 17


def test_the_shipped_weights_have_a_licence_and_a_name(program):
    both = Program(LoadedModel(SHIPPED)), program
    shipped, other = (metadata.describe(one, "float32", {}) for one in both)
    assert shipped["licence"]["weights"] == "Apache-2.0"
    assert other["licence"]["weights"] == "chosen by the authors of the weights"
    assert shipped["description"].startswith("cnn_250k, facial emotion recognition by fer_jax ")
    assert other["description"].startswith("cnn_relu, facial emotion recognition by fer_jax ")


def test_another_network_is_not_kept(program, sample, tmp_path, monkeypatch):
    form = export.open_format("onnx")
    build = form.build

    def wrong(program):
        model = build(program)
        biases = [one for one in model.graph.initializer if list(one.dims) == [7]]
        biases[0].CopyFrom(onnx.numpy_helper.from_array(np.arange(7, dtype=np.float32), biases[0].name))
        return model

    monkeypatch.setattr(form, "build", wrong)
    with pytest.raises(check.MismatchError, match="differs from the network by up to .* nothing was written"):
        export.export(program, "onnx", tmp_path / "wrong.onnx", "float32", sample)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("stablehlo", "int8", "stablehlo does not support int8; it supports: float32"),
        ("onnx", "int8", "with --data"),
        ("safetensors", "float32", "stores only weights"),
        ("h5", "float32", "unknown format 'h5'; there are: onnx, tflite, stablehlo, safetensors"),
    ],
)
def test_refuses_what_a_format_lacks(name, precision, message, bare, tmp_path):
    program, sample = bare
    with pytest.raises(ValueError, match=message):
        export.export(program, name, tmp_path / "x", precision, sample)
    assert not list(tmp_path.iterdir())


NETWORKS = {  # name, classes, side and channels of the input, and of the faces if they are known, attributes
    "cnn_elu": (8, (25, 3), (16, 3), {"widths": (8, 8), "block_dropout": (0.0, 0.0), "hidden": 8}),
    "cnn_residual": (7, (27, 1), (20, 1), {"widths": (8, 12), "blocks": (1, 2), "squeeze": 4}),
    "mobilenet_v3_small": (7, (33, 3), (24, 1), {"padding": "same"}),
    "resnet18": (7, (31, 1), None, {"adapter": "rgb"}),
}


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter, such that activations keep their size."""
    if name == "kernel":
        return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)
    low, high = {"var": (0.7, 1.3), "scale": (0.7, 1.3)}.get(name, (-0.3, 0.3))
    return rng.uniform(low, high, shape).astype(np.float32)


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_of_every_kind(network, tmp_path):
    classes, (side, channels), known, kwargs = NETWORKS[network]
    fill, interpolation = ("constant", "bilinear") if network == "cnn_residual" else ("reflect", "bicubic")
    model = models.create(network, classes, **kwargs)
    rng = np.random.default_rng(0)
    size, depth = known or (side, 1)
    images = rng.integers(0, 256, (5, size, size, depth), np.uint8)
    mean, std = ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3]) if channels == 3 else (0.5, 0.25)
    pixels = transforms.resample(images, augment.identity_affine(5), side, fill, np.mean(mean), interpolation)
    normalized = ((np.broadcast_to(pixels, (5, side, side, channels)) - mean) / std).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), normalized)
    variables = jax.tree_util.tree_map_with_path(lambda path, x: _draw(rng, path[-1].key, x.shape), shapes)
    preprocess = {"image_size": side, "channels": channels, "mean": mean, "std": std}
    facts = {
        "model": {"name": network, "kwargs": kwargs},
        "preprocess": preprocess | {"fill": fill, "interpolation": interpolation},
        "emotions": list(class_names(classes)),
        "faces": known and dict(zip(("side", "channels"), known, strict=True)),
        "data": {"name": "none"},
        "data_hash": "none",
    }
    weights_file.export_weights(tmp_path / "random.safetensors", variables, facts)
    program = Program(LoadedModel(tmp_path / "random.safetensors"))
    assert program.face_shape == images.shape[1:]
    apply = jax.jit(model.apply, compiler_options=runtime.run_once_options())
    logits = apply(variables, normalized)
    expected = special.softmax(np.asarray(logits, np.float64), axis=1)
    assert abs(expected - expected[:1]).max() > 1e-3
    for name in ("onnx", "tflite"):
        path = tmp_path / f"random.{name}"
        export.open_format(name).write(program, path, "float32", None)
        np.testing.assert_allclose(run(path, images), expected, atol=1e-4, err_msg=name)
    without_weights = OnnxEngine(program.trained, graphs.convert(program.trained))
    np.testing.assert_allclose(without_weights(images), expected, atol=1e-4)


@pytest.fixture(scope="module")
def real_faces(shared_dir) -> np.ndarray:
    """128 faces of FER2013, from a sheet of 32 x 32 of them."""
    with Image.open(min((shared_dir / "fer2013" / "sheets").glob("*.png"))) as sheet:
        tiles = np.asarray(sheet).reshape(32, 48, 32, 48).transpose(0, 2, 1, 3)
    return tiles[:4].reshape(-1, 48, 48, 1)


@pytest.fixture(scope="module")
def expected_of_real_faces(real_faces) -> np.ndarray:
    """The shipped network's calibrated probabilities."""
    trained = LoadedModel(ENLARGING)
    probs = trained.predict(real_faces, progress=False)
    return special.softmax(np.log(probs) / trained.metadata["calibration"]["temperature"], axis=1)


@pytest.mark.parametrize("name", RUNTIMES)
def test_real_faces_get_the_same_probabilities(name, real_faces, expected_of_real_faces, tmp_path):
    path, expected = tmp_path / f"shipped.{name}", expected_of_real_faces
    export.open_format(name).write(Program(LoadedModel(ENLARGING)), path, "float32", None)
    found = run(path, real_faces)
    assert abs(found - expected).max() < 1e-4
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
