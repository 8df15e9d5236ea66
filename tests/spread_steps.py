"""Trains a few steps on all devices with each partitioner; run by forked.py.

In float64, differences between partitioners are not due to rounding.
"""

import dataclasses
import functools
import pathlib
import tempfile

import jax
import numpy as np
from helpers import metadata_of
from jax.sharding import Mesh

from fer_jax import models
from fer_jax.data import augment, pipeline
from fer_jax.data.faces import Faces, one_hot
from fer_jax.pretrained import weights_file
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.training import losses, optim, sharding, stages, train_step
from fer_jax.training.distillation import Distillation
from fer_jax.training.state import create_state, random_variables

SIZE, BATCH = 16, 32
# Without erased boxes: over an even area neighbors are equal up to rounding, which then decides where the
# gradient of max-pooling goes, in float64 too.
RANGES = augment.Ranges(flip=0.5, rotation=10, contrast=(0.6, 1.4), mixup=0.4, mix_probability=0.5)


def faces():
    """Returns 100 random faces with imbalanced classes."""
    rng = np.random.default_rng(0)
    labels = rng.choice(7, 100, p=np.arange(1, 8) / 28).astype(np.int32)
    images = rng.integers(0, 256, (100, 20, 20, 1), dtype=np.uint8)
    return Faces(images, labels, one_hot(labels), [str(i) for i in range(100)])


def whole_cnn():
    """Returns a network with all layers trained: (network, trained layers, layers with frozen statistics)."""
    return models.create("cnn_relu", widths=(8, 16), depths=(1, 1), hidden=8, dropout=0.0), None, ()


def backbone_stage():
    """Returns the same for a backbone with its last block and head trained, and the augmentation."""
    model = models.create("efficientnet_b0", width=0.2, depth=0.3, cut=2, dropout=0.0)
    blocks, stage = stages.blocks(model, (SIZE, SIZE, 1)), stages.StageConfig(1, "blocks", last=1)
    trained = stages.trained_layers(stage, blocks)
    ranges = dataclasses.replace(RANGES, erasing=0.5)
    return model, trained, stages.frozen_layers(stage, blocks, trained), ranges


drawn = functools.cache(random_variables)


@functools.cache
def teacher():
    """Returns a random network with another input size."""
    kwargs = {"widths": [4], "depths": [1], "hidden": 8, "dropout": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "teacher.safetensors")
        variables = random_variables(models.create("cnn_relu", **kwargs), (12, 12, 1), seed=3)
        weights_file.export_weights(path, variables, metadata_of(kwargs, 12))
        return LoadedModel(path)


def train(partitioner, model, trained, frozen, ranges=RANGES, *, steps_taken, fault=None):
    """Returns {name: array} of a run with one partitioner, optionally with a planted fault."""
    axis_of = {part: None if part == fault else partitioner.axis_name for part in ("norm", "sum")}
    schedule = optim.learning_rate("cosine", peak=0.1, total_steps=steps_taken)
    tx = optim.make_optimizer("sgd", schedule, weight_decay=0.01, clip_norm=5.0)
    # Sums over examples and sums of weights are both reduced over devices.
    weights = np.linspace(0.5, 3, 7, dtype=np.float32)
    how = {"class_weights": weights, "label_smoothing": 0.1, "normalization": "weights"}
    loss_fn = functools.partial(losses.cross_entropy, **how)
    taught = Distillation([teacher()], weight=0.5, temperature=2.0, dtype=jax.numpy.float32)
    weights = partitioner.put_state(taught.variables)
    step = partitioner.compile(
        train_step.make_train_step(
            model.clone(axis_name=axis_of["norm"], **({"frozen": frozen} if frozen else {})),
            tx,
            loss_fn,
            size=SIZE,
            mean=0.5,
            std=0.25,
            channels=1,
            ema_decay=0.5,
            trained=trained,
            teacher_loss=taught.loss,
            teacher_weight=taught.weight,
            axis_name=axis_of["sum"],
        ),
        constants=1,
    )
    shape = (SIZE, SIZE, 1)
    state = create_state(
        model, tx, input_shape=shape, seed=0, use_ema=True, variables=drawn(model, shape, 0), trained=trained
    )
    state = partitioner.put_state(jax.tree.map(np.asarray, state))
    # Placed on the devices in advance, so that steps do not transfer them.
    here = set(partitioner.mesh.local_devices)
    assert all(x.sharding.addressable_devices == here for x in jax.tree.leaves((state, weights)))
    start = partitioner.fetch(state)
    kept = jax.tree.map(np.array, start)
    stream = pipeline.TrainStream(
        faces(), BATCH, ranges, seed=0, process_index=jax.process_index(), process_count=jax.process_count()
    )
    seen = []
    for _ in range(steps_taken):
        batch = next(stream)
        if jax.config.jax_enable_x64:
            batch = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in batch.items()}
        state, metrics = step(state, partitioner.put_batch(batch), weights)
        seen.append(partitioner.fetch(metrics))
    stream.close()
    # Fetched values stay valid, although their device memory has been reused.
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, start, kept)))
    state = partitioner.fetch(state)
    assert int(state.step) == steps_taken
    trees = {"params": state.params, "batch_stats": state.batch_stats, "ema": state.ema}
    return {
        "loss": np.array([m["loss"] for m in seen]),
        "accuracy": np.array([m["accuracy"] for m in seen]),
        "grad_norm": np.array([m["grad_norm"] for m in seen]),
        **{k: np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for k, t in trees.items()},
    }


def main(out, steps_taken, *distributed):
    """Writes the results of each partitioner to a file.

    With several processes, each feeds its part of the batch, and the first one writes. The file has for each
    partitioner losses [steps], accuracies [steps], and the flat final parameters, statistics, and EMA. With
    one process and float64, it also has a backbone's stage for each partitioner (suffix `_stage`), and the
    planted faults `sum` (each device follows its own gradient) and `norm` (each device has its own BatchNorm
    statistics).

    Args:
      out: path of the file (.npz).
      steps_taken: number of steps.
      *distributed: coordinator, process index, and number of processes.
    """
    if distributed:
        coordinator, process, count = distributed
        jax.distributed.initialize(coordinator, int(count), int(process))
    run = functools.partial(train, steps_taken=int(steps_taken))
    ways = {mode: sharding.make_partitioner(mode, BATCH, RANGES.mixes) for mode in ("jit", "pmap")}
    alone = jax.process_count() == 1
    if alone:
        one = Mesh(np.array(jax.devices()[:1]), (sharding.AXIS,))
        ways["one"] = sharding.Partitioner(one)
        many = len(jax.devices())
        assert sharding.make_partitioner("auto", BATCH) == ways["jit"]
        for batch_size, mixes in ((many * 3 + 1, False), (many * 3, True)):
            try:
                sharding.make_partitioner("auto", batch_size, mixes)
            except ValueError as error:
                print(error)
    results = {way: run(partitioner, *whole_cnn()) for way, partitioner in ways.items()}
    if alone and jax.config.jax_enable_x64:
        results |= {f"{way}_stage": run(partitioner, *backbone_stage()) for way, partitioner in ways.items()}
        for fault in ("sum", "norm"):
            results[fault] = run(ways["pmap"], *whole_cnn(), fault=fault)
    if jax.process_index() == 0:
        flat = {f"{way}/{k}": v for way, result in results.items() for k, v in result.items()}
        np.savez(out, devices=len(jax.devices()), processes=jax.process_count(), **flat)
