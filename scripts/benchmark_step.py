"""How fast the training step and inference of the CNNs are, beside the same networks in Keras on TensorFlow.

    python scripts/benchmark_step.py

Each side runs in a process of its own with every core of this machine, and the processes take turns, a
few steps each, so that whatever else the machine does meets all of them. fer_jax's step is the one of
training: augmentation on the device, update, metrics; "update alone" leaves the augmentation out, which
Keras's step does not have. All are float32 with SGD, Nesterov momentum and dropout, on 48x48 grey faces.
Bar, on the CPU: the update reaches the speed of Keras.
"""

import argparse
import importlib.util
import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the sides share one GPU's memory

import numpy as np  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "scripts")]
from taking_turns import Side, Work, measure, serve  # noqa: E402

SIDE, CLASSES = 48, 7
MODELS = ("cnn_relu", "cnn_elu")
KERAS = "Keras on TensorFlow"
WHOLE, UPDATE = "fer_jax, training step", "fer_jax, update alone"
TRAIN, INFER = "train", "infer"
LEARNING_RATE, MOMENTUM = 1e-3, 0.9


def random_batch(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, for no step depends on what a face shows: images uint8 [B, S, S, 1], one-hot float32 [B, K]."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, SIDE, SIDE, 1), dtype=np.uint8)
    return images, np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, batch_size)]


def fer_jax_work(model_name: str, batch_size: int, augments: bool) -> Work:
    """One training step, and one batch of inference, of fer_jax."""
    import jax
    import optax

    from fer_jax import losses, models, platform, state, steps
    from fer_jax.data import augment

    platform.tune_cpu()
    options = platform.compiler_options()
    images, targets = random_batch(batch_size)
    model, tx = models.create(model_name), optax.sgd(LEARNING_RATE, MOMENTUM, nesterov=True)
    shape = {"size": SIDE, "mean": 0.5, "std": 0.25, "channels": 1}
    batch = {"image": images, "target": targets, **augment.identity(batch_size)}
    if not augments:
        x = (images / np.float32(255) - shape["mean"]) / shape["std"]
        augment.apply = lambda batch, *_: (batch["image"], batch["target"])
        batch, shape = {"image": x, "target": targets}, {**shape, "mean": 0.0, "std": 1.0}
    step = steps.make_train_step(model, tx, losses.cross_entropy, **shape)
    step = jax.jit(step, donate_argnums=0, compiler_options=options)
    run = state.create_state(model, tx, input_shape=(SIDE, SIDE, 1), seed=0, use_ema=False)
    batch = jax.device_put(batch)
    variables = jax.tree.map(np.asarray, run.variables())
    forward = jax.jit(
        lambda variables, x: jax.nn.softmax(model.apply(variables, x)), compiler_options=options
    )
    variables, x = jax.device_put((variables, (images / np.float32(255) - 0.5) / 0.25))

    def train():
        nonlocal run
        run, metrics = step(run, batch)
        return metrics["loss"].block_until_ready()

    return {TRAIN: train, INFER: lambda: forward(variables, x).block_until_ready()}


def keras_network(model_name: str):
    """The network `model_name` of fer_jax, built of Keras layers."""
    from keras import Input, Model, layers

    def norm(x):
        return layers.BatchNormalization(momentum=0.9)(x)

    def conv_relu(x, width):
        return layers.ReLU()(norm(layers.Conv2D(width, 3, padding="same", use_bias=False)(x)))

    def conv_elu(x, width):
        return norm(layers.Conv2D(width, 3, padding="same", activation="elu")(x))

    relu = model_name == "cnn_relu"
    convolve, hidden_dropout = (conv_relu, 0.4) if relu else (conv_elu, 0.6)
    inputs = x = Input((SIDE, SIDE, 1))
    for width, rate in ((64, 0.4), (128, 0.4), (256, 0.5)):
        x = layers.MaxPool2D()(convolve(convolve(x, width), width))
        x = x if relu else layers.Dropout(rate)(x)
    if relu:
        x = layers.Dropout(hidden_dropout)(layers.GlobalAveragePooling2D()(x))
        x = layers.ReLU()(norm(layers.Dense(128, use_bias=False)(x)))
    else:
        x = norm(layers.Dense(128, activation="elu")(layers.Flatten()(x)))
    return Model(inputs, layers.Dense(CLASSES)(layers.Dropout(hidden_dropout)(x)))


def keras_work(model_name: str, batch_size: int) -> Work:
    """One training step, and one batch of inference, of Keras on TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    images, targets = random_batch(batch_size)
    network = keras_network(model_name)
    network.compile(
        keras.optimizers.SGD(LEARNING_RATE, MOMENTUM, nesterov=True),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    x = tf.constant((images / np.float32(255) - 0.5) / 0.25)
    y = tf.constant(targets)
    forward = tf.function(lambda x: tf.nn.softmax(network(x, training=False)))
    return {TRAIN: lambda: network.train_on_batch(x, y), INFER: lambda: forward(x).numpy()}


def work(side: str, model_name: str, batch_size: int) -> Work:
    """What `side` does in a turn."""
    if side == KERAS:
        return keras_work(model_name, batch_size)
    return fer_jax_work(model_name, batch_size, augments=side == WHOLE)


def compare(model_name: str, sides: list[str], batch_size: int, rounds: int, turns: int) -> float | None:
    """Prints images per second of all sides; returns fer_jax's update over Keras's, or None without Keras."""
    processes = {
        side: Side([__file__, "--side", side, "--models", model_name, "--batch_size", str(batch_size)])
        for side in sides
    }
    rates = {}
    for action, name in ((TRAIN, "training"), (INFER, "inference")):
        seconds = measure(processes, action, rounds, turns)
        for side in sides:
            rates[action, side] = batch_size / seconds[side]
            print(f"{model_name:9s} {name:9s} {side:24s} {rates[action, side]:7.0f} images/s")
    for process in processes.values():
        process.close()
    if KERAS not in sides:
        return None
    ratios = {key: rate / rates[key[0], KERAS] for key, rate in rates.items()}
    print(
        f"{model_name:9s} fer_jax / Keras: training step {ratios[TRAIN, WHOLE]:.2f}, "
        f"update alone {ratios[TRAIN, UPDATE]:.2f}, inference {ratios[INFER, UPDATE]:.2f}\n"
    )
    return ratios[TRAIN, UPDATE]


def main() -> int:
    """Prints all measurements; the exit code is 1 when the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6, help="how often the sides take turns")
    parser.add_argument("--turns", type=int, default=3, help="steps timed each time")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(work(options.side, options.models[0], options.batch_size))
        return 0
    sides = [WHOLE, UPDATE]
    missing = [name for name in ("keras", "tensorflow") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{KERAS} is skipped: {' and '.join(missing)} not installed")
    else:
        sides.append(KERAS)
    ratios = {
        name: compare(name, sides, options.batch_size, options.rounds, options.turns)
        for name in options.models
    }
    if None in ratios.values():
        return 0
    ratio = min(ratios.values())
    verdict = "missed" if ratio < 1 else "met"
    print(f"bar (the update alone at 1.00 or more of Keras): {verdict} at {ratio:.2f}")
    return int(ratio < 1)


if __name__ == "__main__":
    sys.exit(main())
