"""Measures the throughput of the networks, compared with stock Flax layers, Keras on TensorFlow, and PyTorch.

    python benchmarks/models.py
    python benchmarks/models.py --models efficientnet_b0 --size 240 --batch_size 256 --dtype bfloat16
    python benchmarks/models.py --models cnn_residual --size 48 --batch_size 256 --dtype bfloat16

The benchmark measures images per second of a minimal training step and of inference. The sides take turns,
each in its own process. The training step is the same on all sides: forward, cross entropy, backward, and SGD
with Nesterov momentum; benchmarks/step.py adds fer_jax's augmentation, EMA, and metrics. "stock Flax" is
fer_jax's network with XLA's own convolutions and `flax.linen.BatchNorm`. PyTorch runs torchvision's networks,
channels last, and on a GPU timm's, compiled, with autocast for bfloat16 and TF32 for float32 products as in
JAX. The CNNs, which take gray faces, are reimplemented below: cnn_relu and cnn_elu in Keras, and in PyTorch
cnn_residual (that of configs/cnn_48_gpu.py without stochastic depth). Sides that are not installed are
skipped; the extra `originals` installs PyTorch. The goal is the faster of TensorFlow and PyTorch on the same
kind of device.
"""

import argparse
import functools
import importlib.util
import os
import sys
from collections.abc import Sequence

import numpy as np
from interleaved import Side, Work, measure, serve

from configs.cnn_48_gpu import NETWORKS
from fer_jax.commands import common

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# The sides share one GPU's memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

CLASSES = 7
OURS, STOCK, TENSORFLOW, TORCH = "fer_jax", "stock Flax", "TensorFlow", "PyTorch"
PEERS = (TENSORFLOW, TORCH)
NEEDS = {OURS: (), STOCK: (), TENSORFLOW: ("keras", "tensorflow"), TORCH: ("torch", "torchvision", "timm")}
TRAIN, INFER = "train", "infer"
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
# Our name, which is also torchvision's, and the names in keras.applications (without ResNet18) and timm.
BACKBONES = {
    "efficientnet_b0": ("EfficientNetB0", "efficientnet_b0"),
    "efficientnet_b2": ("EfficientNetB2", "efficientnet_b2"),
    "mobilenet_v2": ("MobileNetV2", "mobilenetv2_100"),
    "mobilenet_v3_small": ("MobileNetV3Small", "mobilenetv3_small_100"),
    "resnet18": (None, "resnet18"),
    "vgg16": ("VGG16", None),
}
CNNS = ("cnn_residual", "cnn_relu", "cnn_elu")
MODELS = (*BACKBONES, *CNNS)
LACKS = {TENSORFLOW: ("resnet18", "cnn_residual"), TORCH: ("cnn_relu", "cnn_elu")}
_RESIDUAL = NETWORKS["residual"][1]
KWARGS = {"cnn_residual": {key: value for key, value in _RESIDUAL.items() if key != "drop_path"}}
DTYPES = ("float32", "bfloat16")


def random_batch(model_name: str, batch_size: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns noise float32 [B, S, S, C] and one-hot targets float32 [B, K]."""
    rng = np.random.default_rng(0)
    channels = 1 if model_name in CNNS else 3
    images = rng.normal(size=(batch_size, size, size, channels)).astype(np.float32)
    return images, np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, batch_size)]


def use_stock_layers() -> None:
    """Replaces fer_jax's convolutions and BatchNorm by XLA's and Flax's."""
    import flax.linen as nn
    import jax

    from fer_jax.models import backbone, cnn, layers
    from fer_jax.models.ops import convolution

    def convolve(x, kernel, stride=1, padding="same"):
        pads = [convolution.padding_of(n, kernel.shape[0], stride, padding) for n in x.shape[1:3]]
        names, groups = ("NHWC", "HWIO", "NHWC"), x.shape[3] // kernel.shape[2]
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=names, feature_group_count=groups
        )

    class BatchNorm(nn.Module):
        train: bool
        axis_name: str | None = None
        tail: layers.Activation = lambda x: x
        epsilon: float = 1e-3
        dtype: type = np.float32

        def setup(self):
            self.norm = nn.BatchNorm(not self.train, momentum=0.9, epsilon=self.epsilon, dtype=self.dtype)
            nn.share_scope(self, self.norm)

        def __call__(self, x):
            return self.tail(self.norm(x))

    layers.convolve = convolve
    backbone.BatchNorm = cnn.BatchNorm = BatchNorm


def jax_work(model_name: str, batch_size: int, size: int, dtype: str, stock: bool) -> Work:
    """Returns the actions of fer_jax's network, or of the same network with stock layers."""
    import jax
    import optax

    from fer_jax import models, runtime
    from fer_jax.training import losses, state

    if stock:
        use_stock_layers()
    else:
        runtime.tune_cpu()
    options = {} if stock else runtime.compiler_options()
    images, targets = jax.device_put(random_batch(model_name, batch_size, size))
    model = models.create(model_name, dtype=dtype, **KWARGS.get(model_name, {}))
    tx = optax.sgd(LEARNING_RATE, MOMENTUM, nesterov=True)
    run = state.create_state(model, tx, input_shape=images.shape[1:], seed=0, use_ema=False)

    def update(run, x, targets):
        def objective(params):
            rngs = {"dropout": jax.random.fold_in(jax.random.wrap_key_data(run.rng), run.step)}
            variables = {"params": params, "batch_stats": run.batch_stats}
            logits, updated = model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)
            total, count = losses.cross_entropy(logits, targets)
            return total / count, updated.get("batch_stats", {})

        (loss, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(run.params)
        updates, opt_state = tx.update(grads, run.opt_state, run.params)
        params = optax.apply_updates(run.params, updates)
        changed = {"params": params, "batch_stats": batch_stats, "opt_state": opt_state}
        return run.replace(step=run.step + 1, **changed), loss

    def predict(variables, x):
        return jax.nn.softmax(model.apply(variables, x))

    step = jax.jit(update, donate_argnums=0, compiler_options=options)
    forward = jax.jit(predict, compiler_options=options)
    variables = jax.device_put(jax.tree.map(np.asarray, run.variables()))

    def train():
        nonlocal run
        run, loss = step(run, images, targets)
        return float(loss)

    return {TRAIN: train, INFER: lambda: np.asarray(forward(variables, images))}


def keras_network(model_name: str, size: int):
    """Returns fer_jax's `CnnRelu` or `CnnElu` in Keras."""
    from keras import Input, Model, layers

    def norm(x):
        return layers.BatchNormalization(momentum=0.9)(x)

    def conv_relu(x, width):
        return layers.ReLU()(norm(layers.Conv2D(width, 3, padding="same", use_bias=False)(x)))

    def conv_elu(x, width):
        return norm(layers.Conv2D(width, 3, padding="same", activation="elu")(x))

    relu = model_name == "cnn_relu"
    convolve, hidden_dropout = (conv_relu, 0.4) if relu else (conv_elu, 0.6)
    inputs = x = Input((size, size, 1))
    for width, rate in ((64, 0.4), (128, 0.4), (256, 0.5)):
        x = layers.MaxPool2D()(convolve(convolve(x, width), width))
        x = x if relu else layers.Dropout(rate)(x)
    if relu:
        x = layers.Dropout(hidden_dropout)(layers.GlobalAveragePooling2D()(x))
        x = layers.ReLU()(norm(layers.Dense(128, use_bias=False)(x)))
    else:
        x = norm(layers.Dense(128, activation="elu")(layers.Flatten()(x)))
    return Model(inputs, layers.Dense(CLASSES, dtype="float32")(layers.Dropout(hidden_dropout)(x)))


def tensorflow_work(model_name: str, batch_size: int, size: int, dtype: str) -> Work:
    """Returns the actions of Keras on TensorFlow, with keras.applications or `keras_network`."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    if dtype != "float32":
        keras.mixed_precision.set_dtype_policy(f"mixed_{dtype}")
    images, targets = random_batch(model_name, batch_size, size)
    if model_name in CNNS:
        network = keras_network(model_name, size)
    else:
        trunk = getattr(keras.applications, BACKBONES[model_name][0])(
            weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
        )
        logits = keras.layers.Dense(CLASSES, dtype="float32")(keras.layers.Dropout(0.2)(trunk.output))
        network = keras.Model(trunk.inputs, logits)
    network.compile(
        keras.optimizers.SGD(LEARNING_RATE, MOMENTUM, nesterov=True),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    x, y = tf.constant(images), tf.constant(targets)
    forward = tf.function(lambda x: tf.nn.softmax(network(x, training=False)))
    return {TRAIN: lambda: network.train_on_batch(x, y), INFER: lambda: forward(x).numpy()}


def torch_residual(widths: Sequence[int], blocks: Sequence[int], squeeze: int, dropout: float):
    """Returns `fer_jax.models.cnn.CnnResidual` in PyTorch, without stochastic depth."""
    import torch
    from torch import nn

    def conv(before, width):
        return nn.Conv2d(before, width, 3, padding=1, bias=False)

    def norm_relu(width):
        return nn.BatchNorm2d(width, eps=1e-3), nn.ReLU(inplace=True)

    class Branch(nn.Module):
        def __init__(self, width):
            super().__init__()
            pair = [*norm_relu(width), conv(width, width), *norm_relu(width), conv(width, width)]
            self.convs = nn.Sequential(*pair)
            middle = max(1, width // squeeze)
            self.gate = nn.Sequential(
                nn.Linear(width, middle), nn.ReLU(inplace=True), nn.Linear(middle, width), nn.Sigmoid()
            )

        def forward(self, x):
            y = self.convs(x)
            return x + y * self.gate(y.mean((2, 3)))[:, :, None, None]

    stages, before = [], 1
    for width, count in zip(widths, blocks, strict=True):
        stages += [conv(before, width), *(Branch(width) for _ in range(count))]
        stages += [*norm_relu(width), nn.MaxPool2d(2)]
        before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(before, CLASSES)]
    return torch.nn.Sequential(*stages, *head)


def torch_network(model_name: str, cuda: bool):
    """Returns torchvision's network, or timm's on a GPU; VGG16 with global average pooling, as in fer_jax."""
    import torch

    if model_name == "cnn_residual":
        return torch_residual(**KWARGS[model_name])
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):  # unused, but required by torchvision if its C++ operators are missing
        try:
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            pass
    import torchvision

    if model_name == "vgg16":  # without 120 M parameters of dense layers
        trunk = torchvision.models.vgg16(weights=None).features
        layers = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Dropout()]
        return torch.nn.Sequential(trunk, *layers, torch.nn.Linear(512, CLASSES))
    if cuda:
        import timm

        return timm.create_model(BACKBONES[model_name][1], num_classes=CLASSES)
    return getattr(torchvision.models, model_name)(weights=None, num_classes=CLASSES)


def torch_work(model_name: str, batch_size: int, size: int, dtype: str) -> Work:
    """Returns the actions of PyTorch, channels last and on a GPU compiled."""
    import torch

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.backends.cudnn.benchmark = True  # autotunes cuDNN's algorithms, as XLA does
    torch.set_float32_matmul_precision("high")  # TF32
    images, targets = random_batch(model_name, batch_size, size)
    network = torch_network(model_name, cuda).to(device, memory_format=torch.channels_last)
    run = torch.compile(network) if cuda else network
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(device, memory_format=torch.channels_last)
    y = torch.from_numpy(targets).to(device)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM, nesterov=True)
    cast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=dtype == "bfloat16")

    def train():
        network.train()
        optimizer.zero_grad()
        with cast():
            loss = torch.nn.functional.cross_entropy(run(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def infer():
        network.eval()
        with cast():
            return torch.softmax(run(x).float(), 1).cpu().numpy()

    return {TRAIN: train, INFER: infer}


def work(side: str, options: argparse.Namespace) -> Work:
    """Returns the actions of a side with the first of the models."""
    shape = options.models[0], options.batch_size, options.size, options.dtype
    peers = {TENSORFLOW: tensorflow_work, TORCH: torch_work}
    return peers[side](*shape) if side in peers else jax_work(*shape, stock=side == STOCK)


def device_of(side: str) -> str:
    """Returns the device of a side, in the format of `interleaved.serve`."""
    if side == TENSORFLOW:
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
        return f"gpu {details.get('device_name', '')}".strip() if gpus else "cpu"
    if side == TORCH:
        import torch

        return f"gpu {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cpu"
    import jax

    backend = jax.default_backend()
    return backend if backend == "cpu" else f"{backend} {jax.devices()[0].device_kind}"


def missing(side: str) -> list[str]:
    """Returns the packages of a side that are not installed."""
    return [name for name in NEEDS[side] if importlib.util.find_spec(name) is None]


def compare(model_name: str, options: argparse.Namespace) -> tuple[bool, list[str], dict[str, str]]:
    """Measures a model and prints its rows.

    Returns:
      Whether the goal is met, lines with the verdict or why there is none, and the device of each side.
    """
    names = [side for side in options.sides if not missing(side) and model_name not in LACKS.get(side, ())]
    shape = ["--batch_size", str(options.batch_size), "--size", str(options.size), "--dtype", options.dtype]
    sides = {name: Side([__file__, "--side", name, "--models", model_name, *shape]) for name in names}
    devices = {name: side.device for name, side in sides.items()}
    peers = [name for name in PEERS if {name, OURS} <= sides.keys() and sides[name].kind == sides[OURS].kind]
    ratios = []
    for action in (TRAIN, INFER):
        seconds = measure(sides, action, options.rounds, options.turns)
        rates = {name: options.batch_size / taken for name, taken in seconds.items()}
        ratios.append(rates[OURS] / max(rates[name] for name in peers) if peers else 0.0)
        cells = [f"{rates[name]:.0f}" if name in rates else "" for name in NEEDS]
        cells.append(f"{ratios[-1]:.2f}" if peers else "")
        print(f"| {model_name}, {action} | {' | '.join(cells)} |", flush=True)
    for side in sides.values():
        side.close()
    lines = [
        f"{model_name}: no verdict against {name}: it ran on {devices[name]} and fer_jax on {devices[OURS]}; "
        "install builds of both for one kind of device, or hide the GPU by CUDA_VISIBLE_DEVICES=-1"
        for name in PEERS
        if {name, OURS} <= sides.keys() and name not in peers
    ]
    ratio = min(ratios)
    verdict = f"{'met' if ratio >= 1 else 'missed'} at {ratio:.2f} of the faster of {', '.join(peers)}"
    lines.append(f"{model_name}: goal {verdict if peers else 'not judged: no peer on that kind of device'}")
    return ratio >= 1, lines, devices


def main() -> int:
    """Prints all measurements as a table; returns 1 if the goal is missed or cannot be judged."""
    parser = common.plain_parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sides", nargs="+", choices=NEEDS, default=list(NEEDS))
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="dtype of the computation")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, with a turn for each side")
    parser.add_argument("--turns", type=int, default=5, help="timed steps per turn")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(work(options.side, options), device_of(options.side))
        return 0
    print(
        "train: a step on a batch on the device: forward, cross entropy, backward, SGD with Nesterov "
        "momentum, and fetching the loss; without augmentation, EMA, and metrics. infer: forward, softmax. "
        f"batch {options.batch_size}, {options.size} px, {options.dtype}\n"
    )
    print(f"| images/s | {' | '.join(NEEDS)} | fer_jax / faster peer |\n|{'---|' * (len(NEEDS) + 2)}")
    met, words, devices = True, [], {}
    for name in options.models:
        well, lines, found = compare(name, options)
        met, words, devices = met and well, words + lines, devices | found
    print("\n" + "; ".join(f"{side} on {device}" for side, device in devices.items()))
    for side in options.sides:
        if missing(side):
            print(f"{side} skipped, not installed: {', '.join(missing(side))}")
    print("\n".join(words))
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
