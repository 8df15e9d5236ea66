"""Tests Grad-CAM against class activation maps, explicit gradients, and PyTorch, and the figures."""

import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import needed, script
from PIL import Image

from fer_jax import models, runtime
from fer_jax.data import preprocessing
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.faces import Faces, one_hot
from fer_jax.evaluation.saliency import heatmaps, saliency_report
from fer_jax.models.layers import FeatureMap
from fer_jax.pretrained import porting
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import find_weights

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Side of the feature maps for faces of 32 pixels; 1 for other networks.
SIDES = {"cnn_residual": 4, "cnn_elu": 8, "cnn_relu": 8, "vgg16": 2, "vgg16_bn": 2}


def random_variables(model, x, seed=0):
    """Returns random variables at the scale of a trained network, without compiling an initialization."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan = np.prod(leaf.shape[:-1]) if name == "kernel" else 100
        return rng.normal(0, np.sqrt(2 / fan), leaf.shape).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def explain(model, variables, x, classes=None):
    """Returns heatmaps, compiled without optimization in a tenth of the time."""
    grad_cam = heatmaps.make_grad_cam(model, runtime.run_once_options())
    return jax.tree.map(np.asarray, grad_cam(variables, x, classes))


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_has_a_map(name):
    model, x = models.create(name), jax.ShapeDtypeStruct((2, 32, 32, 3), np.float32)
    variables = models.variable_shapes(model, (32, 32, 3))
    _, maps = jax.eval_shape(heatmaps.make_grad_cam(model, {}), variables, x, None)
    side = SIDES.get(name, 1)
    assert maps.shape == (2, side, side) and maps.dtype == np.float32


def test_maps_are_finite_and_nonnegative():
    model = models.create("cnn_residual", widths=(8, 8), blocks=(1, 1), squeeze=2)
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    _, maps = explain(model, random_variables(model, x), x)
    assert np.isfinite(maps).all() and (maps >= 0).all() and maps.any()


def test_with_a_linear_head_on_the_mean_it_is_the_class_activation_map():
    """Zhou et al. 2016 (arXiv:1512.04150): ReLU of the features weighted by the head."""
    model = models.create("efficientnet_b0", cut=3, dropout=0.0)
    x = np.random.default_rng(2).normal(size=(3, 64, 64, 3)).astype(np.float32)
    variables = random_variables(model, x, seed=1)
    classes = np.array([6, 0, 3])
    _, maps = explain(model, variables, x, classes)

    logits, activations = features(model, variables, x)
    head = variables["params"]["head"]
    np.testing.assert_allclose(activations.mean((1, 2)) @ head["kernel"] + head["bias"], logits, rtol=1e-3)
    expected = np.stack([a @ head["kernel"][:, c] for a, c in zip(activations, classes, strict=True)])
    expected = np.maximum(expected, 0)
    assert expected.shape[1] > 1 and (expected > 0).any() and (expected == 0).any()
    np.testing.assert_allclose(maps, expected, atol=1e-5 * expected.max())


def features(model, variables, x):
    """Returns the logits and the input of `FeatureMap`."""

    @functools.partial(jax.jit, compiler_options=runtime.run_once_options())
    def apply(variables, x):
        kept = {"capture_intermediates": lambda module, _: isinstance(module, FeatureMap)}
        return model.apply(variables, x, mutable="intermediates", **kept)

    logits, found = apply(variables, x)
    (activations,) = jax.tree.leaves(found)
    return logits, activations


def relu_head(params, stats, features):
    """Computes `CnnRelu` from its last feature map to the logits."""
    b, h, w, c = features.shape
    pooled = features.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4)).mean(axis=(1, 2))
    x = pooled @ params["Dense_0"]["kernel"]
    stats, norm = stats["BatchNorm_4"], params["BatchNorm_4"]
    x = (x - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-3) * norm["scale"] + norm["bias"]
    return jnp.maximum(x, 0) @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def test_behind_dense_layers_it_is_the_gradient_of_the_class():
    model = models.create("cnn_relu", widths=(4, 8), hidden=8)
    x = np.random.default_rng(3).normal(size=(5, 16, 16, 1)).astype(np.float32)
    variables = random_variables(model, x, seed=2)
    logits, maps = explain(model, variables, x)
    _, activations = features(model, variables, x)
    head = functools.partial(relu_head, variables["params"], variables["batch_stats"])
    np.testing.assert_allclose(head(activations), logits, rtol=1e-4, atol=1e-5)
    for i, chosen in enumerate(logits.argmax(axis=1)):
        gradient = jax.grad(lambda f, c=chosen: head(f)[0, c])(activations[i : i + 1])
        # The paper's weights are means of the gradient; ours are sums, 8 * 8 times as large.
        weights = 64 * gradient.mean(axis=(1, 2))
        expected = np.maximum((activations[i] * weights).sum(axis=-1), 0)
        np.testing.assert_allclose(maps[i], expected, atol=1e-5)


@pytest.mark.originals
@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer4"), ("mobilenet_v3_small", "features")])
def test_it_is_what_pytorch_gives(name, layer):
    torch = needed("torch", "originals")
    needed("torchvision", "originals")
    needed("timm", "originals")
    sys.path.append(str(ROOT / "tests" / "pretrained"))
    import originals

    arrays, _, _ = originals.original(name, "torchvision", 97)
    import torchvision

    net = getattr(torchvision.models, name)(weights=None, num_classes=originals.CLASSES)
    net.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    net.eval()
    seen = []

    def keep(module, inputs, output):
        output.retain_grad()
        seen.append(output)

    getattr(net, layer).register_forward_hook(keep)
    x = np.random.default_rng(0).normal(size=(2, 97, 97, 3)).astype(np.float32)
    answers = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    answers.max(dim=1).values.sum().backward()
    (features,) = seen
    weights = features.grad.mean((2, 3), keepdim=True)
    expected = (weights * features).sum(1).relu().detach().numpy() * features.shape[2] * features.shape[3]

    model = models.create(name, originals.CLASSES)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    logits, maps = explain(model, porting.port(name, "torchvision", arrays, shapes), x)
    assert abs(logits - answers.detach().numpy()).max() <= 1e-4 * abs(logits).max()
    assert maps.shape == expected.shape and maps.shape[1] == 4
    assert abs(maps - expected).max() <= 1e-4 * expected.max()


def test_a_split_is_explained_face_by_face(tiny_run, tiny_data):
    trained, faces = LoadedModel(tiny_run), read.load(tiny_data, "validation")
    explainer = heatmaps.Explainer(trained)
    probs, maps = explainer(faces.images, batch_size=12, progress=False)
    assert probs.shape == (28, 7) and maps.shape == (28, 24, 24)
    np.testing.assert_allclose(probs, trained.predict(faces.images, progress=False), atol=1e-5)
    x = preprocessing.normalize(faces.images[20:21] / np.float32(255), 0.5, 0.25, 1)
    _, expected = explain(trained.model, trained.variables, x)
    np.testing.assert_allclose(maps[20:21], expected, atol=1e-4)
    for images, size, message in ((faces.images[:0], 9, "no images to"), (faces.images, 0, "size is 0")):
        with pytest.raises(ValueError, match=message):
            explainer(images, size)


def test_faces_are_taken_evenly_from_sure_to_unsure():
    confidence = np.linspace(0, 1, 101)
    np.testing.assert_array_equal(saliency_report.spread(np.arange(101), confidence, 5), [100, 75, 50, 25, 0])
    np.testing.assert_array_equal(saliency_report.spread(np.array([3, 9]), confidence, 5), [9, 3])
    assert len(saliency_report.spread(np.array([], int), confidence)) == 0


def test_an_overlay_is_red_where_the_map_is_highest():
    heat = np.zeros((6, 6))
    heat[4, 1] = 3.0
    gray = np.full((48, 48, 1), 128, np.uint8)
    picture = saliency_report.overlay(gray, heat).astype(int)
    assert picture.shape == (192, 192, 3)
    redness = picture[..., 0] - picture[..., 2]
    assert redness[144, 48] > 40 and redness[48, 144] <= 0
    color = np.tile(gray, (1, 1, 3))
    np.testing.assert_array_equal(saliency_report.overlay(color, heat), picture)
    dark = saliency_report.overlay(gray, np.zeros((6, 6)))
    assert (dark == dark[0, 0]).all()


@pytest.mark.drawn
def test_what_is_on_the_sheets(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 6  # none is neutral
    probs = rng.dirichlet(np.ones(7), 90) * 0.5 + 0.5 * np.eye(7)[np.where(rng.random(90) < 0.5, labels, 6)]
    images = rng.integers(0, 256, (90, 24, 24, 1), np.uint8)
    faces = Faces(images, labels, one_hot(labels), [f"face {i}" for i in range(90)])
    maps = rng.random((90, 3, 3))
    maps[7] = 0
    metadata = {"model": {"name": "cnn_relu"}, "split": "test", "data_hash": "abc"}
    metadata |= {"emotions": list(EMOTIONS), "labels": "given", "checkpoint": find_weights("cnn_250k")}
    (tmp_path / "neutral.png").write_text("of an older report")
    found = saliency_report.write_report(tmp_path, probs, maps, faces, metadata | {"data": {"name": "tiny"}})
    assert json.loads((tmp_path / "saliency.json").read_text()) == found
    assert found["map_shape"] == [3, 3] and found["empty_maps"] == 1
    assert list(found["sheets"]) == list(EMOTIONS[:6])
    for name, parts in found["sheets"].items():
        for part, shown in parts.items():
            for row in shown:
                i = int(row["id"].split()[1])
                assert EMOTIONS[labels[i]] == name and EMOTIONS[probs[i].argmax()] == row["prediction"]
                assert (row["prediction"] == name) == (part == "right")
                assert row["confidence"] == pytest.approx(probs[i].max())
        with Image.open(tmp_path / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 5
    assert not (tmp_path / "neutral.png").exists()
    page = (tmp_path / "saliency.md").read_text()
    assert page.startswith("# Grad-CAM of cnn_250k\n")
    assert "3 x 3 cells" in page and "](angry.png)" in page and "neutral.png" not in page


def test_the_script(tiny_run, tiny_data, tmp_path, capsys):
    arguments = ["--workdir", str(tiny_run), "--data", str(tiny_data), "--out", str(tmp_path)]
    assert script("saliency").main([*arguments, "--batch_size", "16"]) == 0
    assert "Grad-CAM of 28 faces of validation" in capsys.readouterr().out
    found = json.loads((tmp_path / "saliency.json").read_text())
    assert found["num_examples"] == 28 and (tmp_path / "mean_maps.png").is_file()
