"""How fast the networks are, beside stock Flax layers, Keras on TensorFlow, and PyTorch.

    python scripts/benchmark_models.py
    python scripts/benchmark_models.py --models efficientnet_b0 --size 240 --batch_size 256 --dtype bfloat16
    python scripts/benchmark_models.py --models cnn_residual --size 48 --batch_size 256 --dtype bfloat16

Images a second of the training step (forward, backward, SGD with Nesterov momentum) and of inference, faces
of three channels, the whole machine for each side; the sides take turns in processes of their own. "stock
Flax" is fer_jax's network with XLA's own convolutions and `flax.linen.BatchNorm`. PyTorch's networks are
torchvision's, channels last; on a GPU timm's, compiled, with autocast for bfloat16. cnn_residual, that of
configs/best.py without skipped branches, is written out for PyTorch below. Sides that are not installed are
named and left out (the extra `originals` has PyTorch's). --limits, for a GPU, adds the rates at which
fer_jax's training step would reach the card's arithmetic or its memory bandwidth, both measured. Bar: the
faster of TensorFlow and PyTorch; the verdict names who took part, and without either there is none.
"""

import argparse
import functools
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Sequence

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the sides share one GPU's memory

import numpy as np  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "scripts")]
from taking_turns import Side, Work, measure, serve  # noqa: E402

from configs.best import NETWORKS  # noqa: E402

CLASSES = 7
OURS, STOCK, TENSORFLOW, TORCH = "fer_jax", "stock Flax", "TensorFlow", "PyTorch"
PEERS = (TENSORFLOW, TORCH)
NEEDS = {OURS: (), STOCK: (), TENSORFLOW: ("keras", "tensorflow"), TORCH: ("torch", "torchvision")}
TRAIN, INFER = "train", "infer"
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
# Our name, which is torchvision's, and those of keras.applications (it has no ResNet18) and timm.
MODELS = {
    "efficientnet_b0": ("EfficientNetB0", "efficientnet_b0"),
    "efficientnet_b2": ("EfficientNetB2", "efficientnet_b2"),
    "mobilenet_v2": ("MobileNetV2", "mobilenetv2_100"),
    "mobilenet_v3_small": ("MobileNetV3Small", "mobilenetv3_small_100"),
    "resnet18": (None, "resnet18"),
    "vgg16": ("VGG16", None),
    "cnn_residual": (None, None),
}
_RESIDUAL = NETWORKS["residual"][1]
KWARGS = {"cnn_residual": {key: value for key, value in _RESIDUAL.items() if key != "drop_path"}}
DTYPES = ("float32", "bfloat16")


def random_batch(batch_size: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, for no step depends on what a face shows: float32 [B, S, S, 3], one-hot float32 [B, K]."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, size, size, 3)).astype(np.float32)
    return images, np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, batch_size)]


def use_stock_layers() -> None:
    """Puts XLA's convolutions and Flax's BatchNorm in the places of fer_jax's."""
    import flax.linen as nn
    import jax

    from fer_jax.models import backbone, cnn, convolution, layers

    def convolve(x, kernel, stride=1, padding="same", groups=1):
        pads = [convolution.padding_of(n, kernel.shape[0], stride, padding) for n in x.shape[1:3]]
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def depthwise(x, kernel, stride=1, padding="same"):
        return convolve(x, kernel, stride, padding, groups=x.shape[3])

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

    layers.convolve, layers.convolve_depthwise = convolve, depthwise
    backbone.BatchNorm = cnn.BatchNorm = BatchNorm


def jax_training(model_name: str, batch_size: int, size: int, dtype: str, options: dict[str, str]):
    """fer_jax's training step, jitted, and its arguments: model, step, (state, images, targets)."""
    import jax
    import optax

    from fer_jax import losses, models, state

    images, targets = jax.device_put(random_batch(batch_size, size))
    model, tx = (
        models.create(model_name, dtype=dtype, **KWARGS.get(model_name, {})),
        optax.sgd(LEARNING_RATE, MOMENTUM, nesterov=True),
    )
    run = state.create_state(model, tx, input_shape=(size, size, 3), seed=0, use_ema=False)

    def update(run, x, targets):
        def objective(params):
            logits, updated = model.apply(
                {"params": params, "batch_stats": run.batch_stats},
                x,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(jax.random.wrap_key_data(run.rng), run.step)},
            )
            total, count = losses.cross_entropy(logits, targets)
            return total / count, updated.get("batch_stats", {})

        (loss, batch_stats), grads = jax.value_and_grad(objective, has_aux=True)(run.params)
        updates, opt_state = tx.update(grads, run.opt_state, run.params)
        params = optax.apply_updates(run.params, updates)
        return run.replace(
            step=run.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state
        ), loss

    return model, jax.jit(update, donate_argnums=0, compiler_options=options), (run, images, targets)


def jax_work(model_name: str, batch_size: int, size: int, dtype: str, stock: bool) -> Work:
    """fer_jax, or its networks of stock layers."""
    import jax

    from fer_jax import platform

    if stock:
        use_stock_layers()
    else:
        platform.tune_cpu()
    options = {} if stock else platform.compiler_options()
    model, step, (run, images, targets) = jax_training(model_name, batch_size, size, dtype, options)
    forward = jax.jit(
        lambda variables, x: jax.nn.softmax(model.apply(variables, x)), compiler_options=options
    )
    variables = jax.device_put(jax.tree.map(np.asarray, run.variables()))

    def train():
        nonlocal run
        run, loss = step(run, images, targets)
        return loss.block_until_ready()

    return {TRAIN: train, INFER: lambda: forward(variables, images).block_until_ready()}


def fastest(work: Callable[[], object], times: int = 10) -> float:
    """Seconds that `work`, done once before, takes at best."""
    work()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def device_limits(dtype: str, side: int, megabytes: int) -> tuple[float, float]:
    """What the device does at best: operations a second in a matrix product, bytes a second in a copy."""
    import jax
    import jax.numpy as jnp

    matrix, block = jnp.ones((side, side), dtype), jnp.ones(megabytes * 2**18, jnp.float32)
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
    operations = 2 * side**3 / fastest(lambda: product(matrix).block_until_ready())
    return operations, 2 * block.nbytes / fastest(lambda: copy(block).block_until_ready())


def training_limits(model_name: str, options: argparse.Namespace) -> str:
    """What limits fer_jax's training step on a GPU, in images a second; XLA counts no oneDNN."""
    operations, bandwidth = device_limits(options.dtype, side=8192, megabytes=1024)
    shape = options.batch_size, options.size, options.dtype
    _, step, arguments = jax_training(model_name, *shape, {})
    cost = step.lower(*arguments).compile().cost_analysis()
    arithmetic = options.batch_size * operations / cost["flops"]
    memory = options.batch_size * bandwidth / cost["bytes accessed"]
    return (
        f"limits: {arithmetic:.0f} by arithmetic ({operations / 1e12:.0f} TFLOP/s), "
        f"{memory:.0f} by memory ({bandwidth / 1e9:.0f} GB/s)"
    )


def tensorflow_work(model_name: str, batch_size: int, size: int, dtype: str) -> Work:
    """keras.applications on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    if dtype != "float32":
        keras.mixed_precision.set_dtype_policy(f"mixed_{dtype}")
    images, targets = random_batch(batch_size, size)
    trunk = getattr(keras.applications, MODELS[model_name][0])(
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
    """`fer_jax.models.cnn.CnnResidual`, of which no branch is skipped."""
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

    stages, before = [], 3
    for width, count in zip(widths, blocks, strict=True):
        stages += [conv(before, width), *(Branch(width) for _ in range(count))]
        stages += [*norm_relu(width), nn.MaxPool2d(2)]
        before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(before, CLASSES)]
    return torch.nn.Sequential(*stages, *head)


def torch_network(model_name: str, cuda: bool):
    """torchvision's network, on a GPU timm's; VGG16 with averaged features like ours."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):  # not needed, but declared by a torchvision without its compiled part
        try:
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            pass
    import torchvision

    if model_name == "cnn_residual":
        return torch_residual(**KWARGS[model_name])
    if model_name == "vgg16":  # not 120 M parameters of dense layers
        trunk = torchvision.models.vgg16(weights=None).features
        layers = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Dropout()]
        return torch.nn.Sequential(trunk, *layers, torch.nn.Linear(512, CLASSES))
    if cuda:
        import timm

        return timm.create_model(MODELS[model_name][1], num_classes=CLASSES)
    return getattr(torchvision.models, model_name)(weights=None, num_classes=CLASSES)


def torch_work(model_name: str, batch_size: int, size: int, dtype: str) -> Work:
    """PyTorch as its users run it: channels last, on a GPU compiled."""
    import torch

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    images, targets = random_batch(batch_size, size)
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
    """What `side` does in a turn, with the first of the models."""
    shape = options.models[0], options.batch_size, options.size, options.dtype
    if side == TENSORFLOW:
        return tensorflow_work(*shape)
    if side == TORCH:
        return torch_work(*shape)
    return jax_work(*shape, stock=side == STOCK)


def missing(side: str) -> list[str]:
    """The packages that a side needs and that are not installed."""
    return [name for name in NEEDS[side] if importlib.util.find_spec(name) is None]


def sides_of(model_name: str, options: argparse.Namespace) -> list[str]:
    """The sides that take part with a model."""
    exists = MODELS[model_name][0] is not None
    return [side for side in options.sides if not missing(side) and (exists or side != TENSORFLOW)]


def compare(model_name: str, options: argparse.Namespace) -> float | None:
    """Prints a model's rows; returns the lower ratio of fer_jax to its faster peer, None without peers."""
    names = sides_of(model_name, options)
    shape = ["--batch_size", str(options.batch_size), "--size", str(options.size), "--dtype", options.dtype]
    sides = {name: Side([__file__, "--side", name, "--models", model_name, *shape]) for name in names}
    ratios = []
    for action in (TRAIN, INFER):
        seconds = measure(sides, action, options.rounds, options.turns)
        rates = {name: options.batch_size / taken for name, taken in seconds.items()}
        peers = [rates[name] for name in PEERS if name in rates]
        ratios.append(rates[OURS] / max(peers) if peers else None)
        cells = [f"{rates[name]:.0f}" if name in rates else "" for name in NEEDS]
        cells.append(f"{ratios[-1]:.2f}" if peers else "")
        print(f"| {model_name}, {action} | {' | '.join(cells)} |", flush=True)
    for side in sides.values():
        side.close()
    if options.limits:
        print(training_limits(model_name, options), flush=True)
    return None if None in ratios else min(ratios)


def verdict(ratios: dict[str, float | None], peers: dict[str, list[str]]) -> tuple[str, bool]:
    """What to say of the bar, and whether it is met.

    Args:
      ratios: of each model to its faster peer, None without peers.
      peers: that took part with each model.
    """
    lines = []
    for group in dict.fromkeys(map(tuple, peers.values())):
        names = [name for name in ratios if tuple(peers[name]) == group]
        if not group:
            lines.append(f"bar not judged, for neither {' nor '.join(PEERS)} took part: {', '.join(names)}")
            continue
        least = min(ratios[name] for name in names)
        against = f"the faster of {' and '.join(group)}" if len(group) > 1 else f"{group[0]} alone"
        word = "met" if least >= 1 else "missed"
        lines.append(f"bar (1.00 or more of {against}): {word} at {least:.2f}: {', '.join(names)}")
    return "\n".join(lines), all(ratio is not None and ratio >= 1 for ratio in ratios.values())


def main() -> int:
    """Prints all measurements as a table; the exit code is 1 when the bar is missed or cannot be judged."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sides", nargs="+", choices=NEEDS, default=list(NEEDS))
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the computation")
    parser.add_argument("--limits", action="store_true", help="what limits the training step on this GPU")
    parser.add_argument("--rounds", type=int, default=3, help="how often the sides take turns")
    parser.add_argument("--turns", type=int, default=5, help="steps timed each time")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(work(options.side, options))
        return 0
    if options.limits:
        import jax

        if jax.default_backend() == "cpu":
            parser.error("--limits is for a GPU, and JAX finds none")
    print(f"| images/s | {' | '.join(NEEDS)} | fer_jax / faster peer |\n|{'---|' * (len(NEEDS) + 2)}")
    ratios = {name: compare(name, options) for name in options.models}
    peers = {name: [s for s in PEERS if s in sides_of(name, options)] for name in options.models}
    words, met = verdict(ratios, peers)
    print()
    for side in options.sides:
        if missing(side):
            print(f"{side} left out, not installed: {', '.join(missing(side))}")
    print(words)
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
