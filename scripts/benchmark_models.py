"""How fast the ImageNet networks are, beside stock Flax layers, Keras on TensorFlow, and PyTorch.

    python scripts/benchmark_models.py

Images a second of the training step (forward, backward, SGD with Nesterov momentum) and of inference,
float32, faces of 96x96x3 in batches of 32, the whole machine for each side; the sides take turns in processes
of their own. "stock Flax" is fer_jax's network with XLA's own convolutions and `flax.linen.BatchNorm`. Sides
that are not installed are left out. Bar, on the CPU: at least the faster of TensorFlow and PyTorch.
"""

import argparse
import functools
import importlib.util
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np  # noqa: E402

sys.path.insert(0, os.path.dirname(__file__))
from taking_turns import Side, Work, measure, serve  # noqa: E402

CLASSES = 7
OURS, STOCK, TENSORFLOW, TORCH = "fer_jax", "stock Flax", "TensorFlow", "PyTorch"
NEEDS = {OURS: (), STOCK: (), TENSORFLOW: ("keras", "tensorflow"), TORCH: ("torch", "torchvision")}
TRAIN, INFER = "train", "infer"
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
# Our name, and those of keras.applications and torchvision. Keras has no ResNet18.
MODELS = {
    "efficientnet_b0": ("EfficientNetB0", "efficientnet_b0"),
    "efficientnet_b2": ("EfficientNetB2", "efficientnet_b2"),
    "mobilenet_v2": ("MobileNetV2", "mobilenet_v2"),
    "mobilenet_v3_small": ("MobileNetV3Small", "mobilenet_v3_small"),
    "resnet18": (None, "resnet18"),
    "vgg16": ("VGG16", "vgg16"),
}


def random_batch(batch_size: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, for no step depends on what a face shows: float32 [B, S, S, 3], one-hot float32 [B, K]."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch_size, size, size, 3)).astype(np.float32)
    return images, np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, batch_size)]


def use_stock_layers() -> None:
    """Puts XLA's convolutions and Flax's BatchNorm in the places of fer_jax's."""
    import flax.linen as nn
    import jax

    from fer_jax.models import backbone, convolution, layers

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
            self.norm = nn.BatchNorm(not self.train, momentum=0.9, epsilon=self.epsilon)
            nn.share_scope(self, self.norm)

        def __call__(self, x):
            return self.tail(self.norm(x))

    layers.convolve, layers.convolve_depthwise, backbone.BatchNorm = convolve, depthwise, BatchNorm


def jax_work(model_name: str, batch_size: int, size: int, stock: bool) -> Work:
    """fer_jax, or its networks of stock layers."""
    import jax
    import optax

    from fer_jax import losses, models, platform, state

    if stock:
        use_stock_layers()
    else:
        platform.tune_cpu()
    compile_ = functools.partial(jax.jit, compiler_options={} if stock else platform.compiler_options())
    images, targets = jax.device_put(random_batch(batch_size, size))
    model, tx = models.create(model_name), optax.sgd(LEARNING_RATE, MOMENTUM, nesterov=True)
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

    step = compile_(update, donate_argnums=0)
    forward = compile_(lambda variables, x: jax.nn.softmax(model.apply(variables, x)))
    variables = jax.device_put(jax.tree.map(np.asarray, run.variables()))

    def train():
        nonlocal run
        run, loss = step(run, images, targets)
        return loss.block_until_ready()

    return {TRAIN: train, INFER: lambda: forward(variables, images).block_until_ready()}


def tensorflow_work(model_name: str, batch_size: int, size: int) -> Work:
    """keras.applications on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    images, targets = random_batch(batch_size, size)
    trunk = getattr(keras.applications, MODELS[model_name][0])(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    logits = keras.layers.Dense(CLASSES)(keras.layers.Dropout(0.2)(trunk.output))
    network = keras.Model(trunk.inputs, logits)
    network.compile(
        keras.optimizers.SGD(LEARNING_RATE, MOMENTUM, nesterov=True),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    x, y = tf.constant(images), tf.constant(targets)
    forward = tf.function(lambda x: tf.nn.softmax(network(x, training=False)))
    return {TRAIN: lambda: network.train_on_batch(x, y), INFER: lambda: forward(x).numpy()}


def torch_work(model_name: str, batch_size: int, size: int) -> Work:
    """torchvision, channels last where that is the faster layout: on the CPU."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):  # not needed, but declared by a torchvision without its compiled part
        try:
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            pass
    import torchvision

    images, targets = random_batch(batch_size, size)
    if model_name == "vgg16":  # with averaged features like ours, not 120 M parameters of dense layers
        trunk = torchvision.models.vgg16(weights=None).features
        network = torch.nn.Sequential(
            trunk,
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Dropout(),
            torch.nn.Linear(512, CLASSES),
        )
    else:
        network = getattr(torchvision.models, MODELS[model_name][1])(weights=None, num_classes=CLASSES)
    network = network.to(memory_format=torch.channels_last)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2)).to(memory_format=torch.channels_last)
    y = torch.from_numpy(targets)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM, nesterov=True)

    def train():
        network.train()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def infer():
        network.eval()
        return torch.softmax(network(x), 1).numpy()

    return {TRAIN: train, INFER: infer}


def work(side: str, model_name: str, batch_size: int, size: int) -> Work:
    """What `side` does in a turn."""
    if side == TENSORFLOW:
        return tensorflow_work(model_name, batch_size, size)
    if side == TORCH:
        return torch_work(model_name, batch_size, size)
    return jax_work(model_name, batch_size, size, stock=side == STOCK)


def compare(model_name: str, options: argparse.Namespace) -> float | None:
    """Prints a model's rows; returns the lower ratio of fer_jax to its faster peer, None without peers."""
    names = [
        side
        for side in options.sides
        if all(importlib.util.find_spec(name) for name in NEEDS[side])
        and not (side == TENSORFLOW and MODELS[model_name][0] is None)
    ]
    shape = ["--batch_size", str(options.batch_size), "--size", str(options.size)]
    sides = {name: Side([__file__, "--side", name, "--models", model_name, *shape]) for name in names}
    ratios = []
    for action in (TRAIN, INFER):
        seconds = measure(sides, action, options.rounds, options.turns)
        rates = {name: options.batch_size / taken for name, taken in seconds.items()}
        peers = [rates[name] for name in (TENSORFLOW, TORCH) if name in rates]
        ratios.append(rates[OURS] / max(peers) if peers else None)
        cells = [f"{rates[name]:.0f}" if name in rates else "" for name in NEEDS]
        cells.append(f"{ratios[-1]:.2f}" if peers else "")
        print(f"| {model_name}, {action} | {' | '.join(cells)} |", flush=True)
    for side in sides.values():
        side.close()
    return None if None in ratios else min(ratios)


def main() -> int:
    """Prints all measurements as a table; the exit code is 1 when the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sides", nargs="+", choices=NEEDS, default=list(NEEDS))
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3, help="how often the sides take turns")
    parser.add_argument("--turns", type=int, default=5, help="steps timed each time")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(work(options.side, options.models[0], options.batch_size, options.size))
        return 0
    print(f"| images/s | {' | '.join(NEEDS)} | fer_jax / faster peer |\n|{'---|' * (len(NEEDS) + 2)}")
    ratios = [compare(name, options) for name in options.models]
    if None in ratios:
        return 0
    verdict = "met" if min(ratios) >= 1 else "missed"
    print(f"\nbar (1.00 or more of the faster peer): {verdict} at {min(ratios):.2f}")
    return int(min(ratios) < 1)


if __name__ == "__main__":
    sys.exit(main())
