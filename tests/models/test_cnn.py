"""Tests the CNNs against the same networks in Keras, with copied weights."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from fer_jax import models


def keras_elu(widths, hidden):
    """Returns `CnnElu` in Keras."""
    layers = keras.layers
    net = [keras.Input((48, 48, 1))]
    for width in widths:
        for _ in range(2):
            net += [layers.Conv2D(width, 3, padding="same", activation="elu"), layers.BatchNormalization()]
        net += [layers.MaxPooling2D()]
    net += [layers.Flatten(), layers.Dense(hidden, activation="elu"), layers.BatchNormalization()]
    return keras.Sequential([*net, layers.Dense(7)])


def keras_relu(widths, depths, hidden):
    """Returns `CnnRelu` in Keras."""
    layers = keras.layers
    net = [keras.Input((48, 48, 1))]
    for width, depth in zip(widths, depths, strict=True):
        for _ in range(depth):
            net += [layers.Conv2D(width, 3, padding="same", use_bias=False), layers.BatchNormalization()]
            net += [layers.ReLU()]
        net += [layers.MaxPooling2D()]
    net += [layers.GlobalAveragePooling2D(), layers.Dense(hidden, use_bias=False)]
    return keras.Sequential([*net, layers.BatchNormalization(), layers.ReLU(), layers.Dense(7)])


def keras_residual(widths, blocks, squeeze):
    """Returns `CnnResidual` in Keras."""
    layers = keras.layers

    def norm_relu(x):
        return layers.ReLU()(layers.BatchNormalization()(x))

    def conv(x, width):
        return layers.Conv2D(width, 3, padding="same", use_bias=False)(x)

    x = inputs = keras.Input((48, 48, 1))
    for width, count in zip(widths, blocks, strict=True):
        x = conv(x, width)
        for _ in range(count):
            y = conv(norm_relu(conv(norm_relu(x), width)), width)
            if squeeze:
                gate = layers.Dense(width // squeeze, activation="relu")(layers.GlobalAveragePooling2D()(y))
                gate = layers.Dense(width, activation="sigmoid")(gate)
                y = layers.Multiply()([y, layers.Reshape((1, 1, width))(gate)])
            x = layers.Add()([x, y])
        x = norm_relu(x)
        x = layers.MaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(7)(layers.GlobalAveragePooling2D()(x)))


def copied(net, rng):
    """Sets random weights in the Keras network, and returns them as variables of ours."""
    params, batch_stats, counts = {}, {}, {"Conv": 0, "Dense": 0, "BatchNorm": 0}
    kinds = {"Conv2D": "Conv", "Dense": "Dense", "BatchNormalization": "BatchNorm"}
    for layer in net.layers:
        kind = kinds.get(type(layer).__name__)
        if kind is None:
            continue
        name = f"{kind}_{counts[kind]}"
        counts[kind] += 1
        shapes = [variable.shape for variable in layer.weights]
        if kind == "BatchNorm":
            values = [rng.uniform(0.5, 1.5, shape) for shape in shapes]
        else:
            values = [rng.normal(0, np.sqrt(2 / (np.prod(shape[:-1]) or 1)), shape) for shape in shapes]
        layer.set_weights(values)
        if kind == "BatchNorm":
            scale, bias, mean, var = values
            params[name] = {"scale": scale, "bias": bias}
            batch_stats[name] = {"mean": mean, "var": var}
        else:
            params[name] = dict(zip(("kernel", "bias"), values, strict=False))
    variables = {"params": params, "batch_stats": batch_stats}
    return jax.tree.map(lambda x: np.asarray(x, np.float32), variables)


def as_residual(variables):
    """Returns the variables with dense layers renamed as in squeeze-excitation and the head."""
    params = variables["params"]
    dense = [params.pop(f"Dense_{i}") for i in range(sum(name.startswith("Dense") for name in params))]
    params["head"] = dense.pop()
    for i in range(len(dense) // 2):
        params[f"SqueezeExcite_{i}"] = {"reduce": dense[2 * i], "expand": dense[2 * i + 1]}
    return variables


@pytest.mark.parametrize(
    ("name", "build", "kwargs"),
    [
        ("cnn_elu", keras_elu, dict(widths=(4, 8, 8), hidden=16)),
        ("cnn_relu", keras_relu, dict(widths=(8, 16), depths=(1, 3), hidden=16)),
        ("cnn_residual", keras_residual, dict(widths=(4, 8, 8), blocks=(0, 1, 1), squeeze=2)),
        ("cnn_residual", keras_residual, dict(widths=(8, 16), blocks=(2, 1), squeeze=0)),
    ],
)
def test_same_network_as_in_keras(name, build, kwargs):
    rng = np.random.default_rng(0)
    net, model = build(**kwargs), models.create(name, **kwargs)
    variables = copied(net, rng)
    if name == "cnn_residual":
        variables = as_residual(variables)
    x = rng.normal(size=(3, 48, 48, 1)).astype(np.float32)
    ours = jax.jit(lambda v, x: model.apply(v, x))(variables, x)
    theirs = np.asarray(net(x, training=False))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
    initial = models.variable_shapes(model, (48, 48, 1))
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(jnp.shape, variables)


@pytest.mark.parametrize(
    ("name", "parameters"), [("cnn_elu", 2_326_983), ("cnn_relu", 1_179_079), ("cnn_residual", 1_962_207)]
)
def test_the_number_of_parameters(name, parameters):
    shapes = models.variable_shapes(models.create(name), (48, 48, 1))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_relu_takes_any_size_and_elu_does_not():
    small = jnp.zeros((1, 16, 16, 1))
    relu, elu = models.create("cnn_relu", widths=(4, 8)), models.create("cnn_elu")
    variables = jax.jit(relu.init)(jax.random.key(0), small)
    assert jax.eval_shape(relu.apply, variables, jnp.zeros((2, 23, 23, 1))).shape == (2, 7)
    variables = jax.eval_shape(elu.init, jax.random.key(0), small)
    with pytest.raises(Exception, match="kernel"):
        jax.eval_shape(elu.apply, variables, jnp.zeros((1, 24, 24, 1)))


@pytest.mark.parametrize("name", ["cnn_elu", "cnn_relu"])
def test_faces_too_small_for_the_blocks_are_refused(name):
    model = models.create(name)
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    with pytest.raises(ValueError, match="faces of 8x7 are too small for this model: at least 8x8"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 7, 1)))


def test_residual_branches_are_skipped_by_their_place():
    """With a rate near 1 for the last of two branches, only that one is skipped: its gradient is 0."""
    model = models.create("cnn_residual", widths=(4, 8), blocks=(1, 1), drop_path=0.9999, dropout=0.0)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)

    def total(params):
        rngs = {"dropout": jax.random.key(2)}
        logits, _ = model.apply({**variables, "params": params}, x, True, rngs=rngs, mutable=["batch_stats"])
        return (logits[:, 0] ** 2).sum()

    gradient = jax.jit(jax.grad(total))(variables["params"])
    sizes = {name: np.abs(of["kernel"]).max() for name, of in gradient.items() if "Conv" in name}
    assert sizes["Conv_4"] == sizes["Conv_5"] == 0
    assert all(sizes[name] > 0 for name in ("Conv_0", "Conv_1", "Conv_2", "Conv_3"))


@pytest.mark.parametrize(
    ("name", "field"), [("cnn_elu", "block_dropout"), ("cnn_relu", "depths"), ("cnn_residual", "blocks")]
)
def test_blocks_described_by_different_numbers_are_refused(name, field):
    model = models.create(name, widths=(4, 8), **{field: (1,)})
    with pytest.raises(ValueError, match=rf"{field}=\(1,\) and widths=\(4, 8\): expected one number"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


def test_dropout_acts_in_training_only():
    model = models.create("cnn_relu", widths=(4,), dropout=0.5)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)

    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    assert np.array_equal(train(0), train(0)) and not np.array_equal(train(0), train(1))
    assert np.array_equal(model.apply(variables, x), model.apply(variables, x))


NARROW = {
    "cnn_elu": dict(widths=(8, 16), hidden=16, block_dropout=(0.1, 0.1)),
    "cnn_relu": dict(widths=(8, 16), hidden=16),
    "cnn_residual": dict(widths=(8, 16), blocks=(0, 1), squeeze=2),
}


@pytest.mark.parametrize("name", NARROW)
def test_bfloat16_computes_close_to_float32(name):
    x = jax.random.normal(jax.random.key(1), (8, 16, 16, 1))
    full = models.create(name, **NARROW[name])
    half, variables = full.clone(dtype="bfloat16"), jax.jit(full.init)(jax.random.key(0), x)
    shapes = jax.eval_shape(half.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    a, b = (jax.jit(network.apply)(variables, x) for network in (full, half))
    assert b.dtype == jnp.float32
    assert np.abs(a - b).max() < 0.05 * np.abs(a).max() + 0.02


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown model 'vgg'; there are: cnn_elu, cnn_relu"):
        models.create("vgg")
    with pytest.raises(ValueError, match=r"cnn_relu has no attribute \['width'\]; it has: .*widths"):
        models.create("cnn_relu", width=3)
