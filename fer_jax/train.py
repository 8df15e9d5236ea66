"""The training loop, read from top to bottom: data, model, state, steps, evaluations, checkpoints, report."""

import functools
import json
import logging
import pathlib
from typing import Any

import flax
import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

import fer_jax
from fer_jax import losses, models, optim, parallel, platform, steps
from fer_jax.checkpoints import BEST_WEIGHTS, CHECKPOINTS, Checkpoints, export_weights, load_weights
from fer_jax.data import augment, builder, pipeline, splits
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.faces import Faces
from fer_jax.evaluation import curves, predict, report, statistics
from fer_jax.monitor import PreemptedError, StopSignal, Window
from fer_jax.state import create_state
from fer_jax.workdir import claim, exclusive, finish, finished_summary, flatten
from fer_jax.writers import Writers, parameter_overview, progress_bar, read_records

SELECTION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")


def train_and_evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Trains, resumes or recognises a finished run, and reports on its best checkpoint.

    Args:
      config: as made by `configs/default.py` and its experiments.
      workdir: the run's directory; made here, continued where it holds the same run.

    Returns:
      What also lies in `summary.json`: "best" (split, metric, value, step, epoch), "steps", "seconds" of
      training, "input_wait" (share of them spent waiting for input), "accuracy" and "macro_f1" of the best
      checkpoint on the selection split, "stopped_early".

    Raises:
      ValueError: the config cannot work (the message names the field), the directory is another run's, or
        another process is training in it.
      FileNotFoundError: no weights at `config.init_from`.
      NonFiniteLossError: the loss became NaN or infinite; the checkpoints before it stay.
      PreemptedError: SIGTERM or Ctrl-C came; the state is saved.
    """
    workdir = pathlib.Path(workdir)
    manifest = builder.read_manifest(config.data.dir)
    with exclusive(workdir):
        claim(workdir, config, manifest["content_hash"])
        if summary := finished_summary(workdir):
            logging.info("this run is finished; its report is %s", workdir / "report" / "report.md")
            return summary
        with StopSignal() as stop:
            run = Run(config, workdir, manifest)
            try:
                while run.step < run.total_steps and not run.watch.should_stop:
                    run.train_until(min(run.next_evaluation(), run.total_steps), stop)
                    run.evaluate()
                    if _preempted(stop, run.step):
                        raise PreemptedError(run.step)
            finally:
                run.close()
        return run.summarize()


class Run:
    """A run in memory.

    Attributes:
      state: the `TrainState`, placed on the devices.
      step: steps done, as a Python int; with accumulated gradients an update takes several.
      total_steps: of the whole run.
      watch: the best metric so far, early stopping and the plateau's factor.
      facts: what every checkpoint says of itself.
    """

    def __init__(self, config: ConfigDict, workdir: pathlib.Path, manifest: dict[str, Any]):
        self.config, self.workdir = config, workdir
        self._train_steps: dict[int, Any] = {}
        # One process of several speaks for all; every process saves, for Orbax synchronises them.
        self.primary = jax.process_index() == 0
        _check(config)
        self.ranges = _augmentation(config.augment)
        self.placement = parallel.place(config.parallel, config.train.batch_size, self.ranges.mixes)
        train, self.selection = _load_training(config), _load(config, config.selection.split)
        self.stream = pipeline.TrainStream(
            train,
            config.train.batch_size,
            self.ranges,
            config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=config.data.num_workers,
        )
        per_epoch = self.stream.batches_per_epoch
        self.total_steps = config.train.steps or max(1, round(config.train.epochs * per_epoch))
        self.steps_per_evaluation = config.train.eval_steps or config.train.eval_epochs * per_epoch
        self.learning_rate = _learning_rate(config.optim, self.total_steps, per_epoch)
        self.tx = optim.make_optimizer(
            config.optim.name,
            self.learning_rate,
            momentum=config.optim.momentum,
            weight_decay=config.optim.weight_decay,
            clip_norm=config.optim.clip_norm,
            accumulate=config.optim.accumulate,
        )
        self.loss_fn = _loss(config.loss, train)
        self.watch = _watch(config)
        kwargs = {"dtype": config.model.dtype, **config.model.kwargs.to_dict()}
        self.model = models.create(config.model.name, len(EMOTIONS), **kwargs)
        self.preprocess = {
            "mean": config.model.mean,
            "std": config.model.std,
            "channels": config.model.channels,
            "fill": self.ranges.fill,
        }
        self._check_sizes()
        forward = steps.make_forward(self.model, size=config.model.input_size, **self.preprocess)
        self.forward = predict.compile_forward(forward, platform.compiler_options())
        self.facts = _facts(config, manifest, self.preprocess, kwargs)
        self._start()

    def _start(self) -> None:
        """A fresh state, or the newest whole checkpoint."""
        config, side = self.config, self.config.model.input_size
        self.checkpoints = Checkpoints(self.workdir / CHECKPOINTS, config.checkpoint.keep)
        state = create_state(
            self.model,
            self.tx,
            input_shape=(side, side, config.model.channels),
            seed=config.seed,
            use_ema=bool(config.train.ema_decay),
            variables=self._initial_variables(),
        )
        logging.info("parameters:\n%s", parameter_overview(state.params))
        self.facts["parameters"] = sum(p.size for p in jax.tree.leaves(state.params))
        state = jax.tree.map(np.asarray, state)
        self.step = 0
        self.window = Window(self.placement.fetch)
        if restored := self.checkpoints.restore_newest(state):
            self.step, state = restored.step, restored.state
            self.stream.restore(restored.extra["stream"])
            self.watch.restore(restored.extra["watch"])
            self.window = Window(self.placement.fetch, restored.extra.get("window"))
            self.stream.wait_seconds = restored.extra.get("wait_seconds", 0.0)
            self.facts = restored.extra["facts"]
            logging.info("going on from step %d of %d", self.step, self.total_steps)
        self.state = self.placement.put_state(state)
        self.writers = Writers(self.workdir, self.step) if self.primary else None
        if self.primary and not self.step:
            self._show_start()

    def _check_sizes(self) -> None:
        """Refuses, before any work, input sizes that the model does not take.

        Raises:
          ValueError: as the model says, or that a size differs from the one its shapes come from.
        """
        config = self.config

        def faces(size):
            return jax.ShapeDtypeStruct((1, size, size, config.model.channels), np.float32)

        variables = jax.eval_shape(self.model.init, jax.random.key(0), faces(config.model.input_size))
        for _, size in config.train.sizes:
            try:
                jax.eval_shape(self.model.apply, variables, faces(size))
            except flax.errors.ScopeParamShapeError:
                raise ValueError(
                    f"config.train.sizes has {size}, but {config.model.name} has dense layers for "
                    f"config.model.input_size={config.model.input_size} and takes no other size"
                ) from None

    def _initial_variables(self) -> dict[str, Any] | None:
        """Old weights to start from; a run that goes on has its own and needs them no more."""
        if not self.config.init_from or self.checkpoints.steps():
            return None
        return load_weights(self.config.init_from)[0]

    def _show_start(self) -> None:
        """The hyper-parameters, and a sheet of the first augmented faces."""
        self.writers.hparams(flatten(self.facts["config"]))
        sheet = pipeline.contact_sheet(
            next(self.stream), self.config.model.input_size, self.ranges.fill, self.config.model.mean
        )
        self.stream.restore({"next_batch": 0})
        curves.save_image(sheet, self.workdir / "augmented_faces.png")
        self.writers.image(0, "augmented_faces", sheet)

    @property
    def epoch(self) -> float:
        return self.step / self.stream.batches_per_epoch

    def next_evaluation(self) -> int:
        """The next step after which to evaluate."""
        number = int(self.step / self.steps_per_evaluation)
        while round(number * self.steps_per_evaluation) <= self.step:
            number += 1
        return round(number * self.steps_per_evaluation)

    def input_size(self) -> int:
        """The size at which faces are drawn at this step."""
        for until, size in self.config.train.sizes:
            if self.step < until * self.total_steps:
                return size
        return self.config.model.input_size

    def train_step(self, size: int):
        """The compiled step for an input size."""
        if size not in self._train_steps:
            self._train_steps[size] = self._compile_step(size)
        return self._train_steps[size]

    def _compile_step(self, size: int):
        axis_name = self.placement.axis_name
        step = steps.make_train_step(
            self.model.clone(axis_name=axis_name),
            self.tx,
            self.loss_fn,
            size=size,
            **self.preprocess,
            ema_decay=self.config.train.ema_decay,
            accumulate=self.config.optim.accumulate,
            axis_name=axis_name,
        )
        return self.placement.compile(step)

    def train_until(self, end: int, stop: StopSignal) -> None:
        """Trains up to step `end`, reporting and saving on the way.

        Raises:
          PreemptedError: a signal to stop came before `end`; the state is saved.
        """
        config, save_every = self.config, self.config.checkpoint.every_steps
        mix_end = config.train.mix_until * self.total_steps
        unmixed = augment.identity(config.train.batch_size // jax.process_count())["mix"]
        self.window.start()
        # What is saved between two evaluations has no score.
        self.facts |= {"evaluation": None, "selection": None}
        with progress_bar(self.total_steps, self.step, self.primary) as bar:
            while self.step < end:
                batch = next(self.stream)
                if self.ranges.mixes and self.step >= mix_end:
                    batch["mix"] = unmixed
                train_step = self.train_step(self.input_size())
                self.state, metrics = train_step(self.state, self.placement.put_batch(batch))
                self.step += 1
                self.window.add(self.step, metrics)
                bar.update()
                if self.step % config.log_every == 0 or self.step == end:
                    bar.set_postfix_str(self._report())
                if self.step == end:
                    return  # saved after the evaluation that is due here
                preempted = _preempted(stop, self.step)
                if preempted or (save_every and self.step % save_every == 0):
                    self.window.check()
                    self.save()
                if preempted:
                    raise PreemptedError(self.step)

    def _report(self) -> str:
        """Writes the window's numbers; returns them for the progress bar."""
        values = self.window.summary(self.config.train.batch_size, self.stream.wait_seconds)
        self.stream.wait_seconds = 0.0
        update = (self.step - 1) // self.config.optim.accumulate
        values["learning_rate"] = float(self.learning_rate(update)) * self.watch.scale
        if self.primary:
            self.writers.scalars(self.step, self.epoch, "train", values)
        return (
            f"loss {values['loss']:.3f} acc {values['accuracy']:.3f} "
            f"{values['images_per_second']:.0f} img/s wait {values['input_wait']:.1%}"
        )

    def evaluate(self) -> None:
        """Evaluates on the selection split, keeps the weights if they are the best, and saves."""
        variables, labels = self.placement.fetch(self.state.variables()), self.selection.labels
        probs = predict.predict(self.forward, variables, self.selection.images, progress=False)
        values = {
            "loss": statistics.nll(probs, labels),
            "accuracy": statistics.accuracy(probs, labels),
            "balanced_accuracy": statistics.balanced_accuracy(probs, labels),
            "macro_f1": statistics.macro_f1(probs, labels),
        }
        if jax.process_count() > 1:
            # Processes that differ in a rounding must not differ in what follows from it.
            values = jax.tree.map(float, multihost_utils.broadcast_one_to_all(values))
        metric = self.config.selection.metric
        best = self.watch.update(values[metric], self.step)
        self.state = self.state.replace(lr_scale=self.placement.put_state(np.float32(self.watch.scale)))
        self.facts["evaluation"] = {
            "split": self.config.selection.split,
            "metric": metric,
            "value": values[metric],
            "step": self.step,
            "epoch": round(self.epoch, 2),
        }
        self.facts["selection"] = self.facts["evaluation"] if best else None
        if self.primary:
            self._report_evaluation(variables, values, probs, best)
        # Last, for a run that goes on from here does nothing of the above again.
        self.save(values[metric])

    def _report_evaluation(
        self, variables: dict[str, Any], values: dict[str, float], probs: np.ndarray, best: bool
    ) -> None:
        """Writes the weights and the numbers of an evaluation."""
        for name in ("last", "best") if best else ("last",):
            path = self.workdir / f"{name}.safetensors"
            export_weights(path, variables, self.facts, self.config.checkpoint.dtype)
        self.writers.scalars(self.step, self.epoch, "eval", values)
        matrix = statistics.confusion_matrix(probs, self.selection.labels)
        self.writers.image(self.step, "confusion_matrix", curves.confusion_image(matrix, EMOTIONS))
        self.writers.flush()
        numbers = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        split, note = self.config.selection.split, " (best)" if best else ""
        logging.info("epoch %.1f: %s %s%s", self.epoch, split, numbers, note)

    def save(self, selection: float | None = None) -> None:
        """Saves everything that a resumed run needs."""
        extra = {
            "stream": self.stream.state(),
            "watch": self.watch.state(),
            "window": self.window.state(),
            "wait_seconds": self.stream.wait_seconds,
            "facts": self.facts,
        }
        self.checkpoints.save(self.step, self.placement.fetch(self.state), extra, selection)

    def close(self) -> None:
        """Waits for the last save and ends the read-ahead."""
        self.checkpoints.close()
        self.stream.close()
        if self.primary:
            self.writers.flush()

    def summarize(self) -> dict[str, Any]:
        """The report on the best weights, the curves and the summary that marks the run as finished."""
        # From the checkpoint, which is of this very run: after a fall back to an older one, the weights
        # that lie beside it may be of a future that did not come again. Orbax waits for all processes.
        variables, facts = load_weights(self.workdir / CHECKPOINTS / str(self.watch.best_step))
        if not self.primary:  # but Orbax reads with all processes together
            return {"steps": self.step}
        export_weights(self.workdir / BEST_WEIGHTS, variables, facts, self.config.checkpoint.dtype)
        result = report.write_report(
            self.workdir / "report",
            predict.predict(self.forward, variables, self.selection.images, progress=False),
            self.selection.labels,
            self.selection.ids,
            facts=facts
            | {
                "split": self.config.selection.split,
                "checkpoint": str(self.workdir / BEST_WEIGHTS),
                "tta": "none",
            },
            images=self.selection.images,
            groups=splits.duplicate_groups(self.selection.images),
        )
        records = list(read_records(self.workdir))
        metric = self.config.selection.metric
        curves.plot_training(records, self.workdir / "training_curves.png", metric=metric)
        training = [record for record in records if record["kind"] == "train"]
        seconds = np.array([record["seconds"] for record in training])
        waits = np.array([record["input_wait"] for record in training])
        summary = {
            "best": facts["selection"],
            "steps": self.step,
            "seconds": round(float(seconds.sum()), 1),
            "input_wait": float(np.average(waits, weights=seconds)),
            "accuracy": result["accuracy"],
            "macro_f1": result["macro_f1"],
            "stopped_early": self.step < self.total_steps,
        }
        finish(self.workdir, summary)
        return summary


def _check(config: ConfigDict) -> None:
    """Refuses, before any work, values that would fail or mislead later."""
    positive = ("log_every", "train.batch_size", "optim.accumulate", "model.input_size")
    durations = ("train.epochs", "train.steps", "train.eval_epochs", "train.eval_steps")
    for name in positive + durations:
        value = _field(config, name)
        if value is not None and value <= 0:
            raise ValueError(f"config.{name} is {value}; expected more than 0")
    choices = {
        "selection.metric": SELECTION_METRICS,
        "model.dtype": ("float32", "bfloat16", "float16"),
        "checkpoint.dtype": ("float32", "float16"),
        "loss.class_weights": ("none", "balanced"),
    }
    for name, known in choices.items():
        if _field(config, name) not in known:
            raise ValueError(f"config.{name} is {_field(config, name)!r}; there are: {', '.join(known)}")
    if config.selection.split == "test":
        raise ValueError(
            "config.selection.split is 'test', which is for the final score only; select on validation"
        )


def _field(config: ConfigDict, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), config)


def _augmentation(config: ConfigDict) -> augment.Ranges:
    pairs = {name: tuple(v) if isinstance(v, list) else v for name, v in config.to_dict().items()}
    return augment.Ranges(**pairs)


def _load(config: ConfigDict, split: str) -> Faces:
    faces = builder.load(config.data.dir, split, image_size=config.data.image_size)
    logging.info("%s: %d faces of %s", split, len(faces), faces.image_shape)
    return faces


def _load_training(config: ConfigDict) -> Faces:
    """The training split, cleaned as the config says."""
    train, data = _load(config, "train"), config.data
    if not (data.drop_blank or data.merge_twins):
        return train
    train, counts = splits.clean_train(train, drop_blank=data.drop_blank, merge_twins=data.merge_twins)
    logging.info("training faces after cleaning: %d, left out: %s", len(train), counts)
    return train


def _learning_rate(config: ConfigDict, total_steps: int, per_epoch: float):
    warmup, boundaries = config.warmup_steps, config.boundary_steps
    if warmup is None:
        warmup = config.warmup_epochs * per_epoch
    if boundaries is None:
        boundaries = [epoch * per_epoch for epoch in config.boundary_epochs]
    # The schedule counts updates, of which an accumulated gradient makes fewer than steps.
    return optim.learning_rate(
        config.schedule,
        peak=config.learning_rate,
        total_steps=max(1, total_steps // config.accumulate),
        warmup_steps=round(warmup / config.accumulate),
        step_boundaries=[round(step / config.accumulate) for step in boundaries],
        step_factor=config.step_factor,
    )


def _loss(config: ConfigDict, train: Faces):
    weights = None
    if config.class_weights == "balanced":
        counts = np.bincount(train.labels, minlength=len(EMOTIONS))
        weights = losses.balanced_class_weights(counts)
        logging.info("class weights: %s", dict(zip(EMOTIONS, weights.tolist(), strict=True)))
    return functools.partial(
        losses.cross_entropy,
        label_smoothing=config.label_smoothing,
        class_weights=weights,
        focal_gamma=config.focal_gamma,
        normalization=config.normalization,
    )


def _watch(config: ConfigDict) -> optim.Watch:
    plateau = config.optim.schedule == "plateau"
    return optim.Watch(
        patience=config.selection.patience,
        plateau_patience=config.optim.plateau_patience if plateau else 0,
        plateau_factor=config.optim.plateau_factor,
        min_scale=config.optim.plateau_min_scale,
    )


def _facts(
    config: ConfigDict,
    manifest: dict[str, Any],
    preprocess: dict[str, Any],
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """What every checkpoint says of itself.

    At an evaluation "evaluation" becomes its result, and "selection" too where it is the best so far.
    """
    return {
        "version": fer_jax.__version__,
        "model": {"name": config.model.name, "kwargs": kwargs},
        "preprocess": {"image_size": config.model.input_size, **preprocess},
        "emotions": list(EMOTIONS),
        "config": json.loads(config.to_json_best_effort()),
        "data_hash": manifest["content_hash"],
        "data": {key: manifest[key] for key in ("name", "source_kind", "splits")},
        "loaded_size": config.data.image_size,
        "seed": config.seed,
        "ema": bool(config.train.ema_decay),
        "evaluation": None,
        "selection": None,
    }


def _preempted(stop: StopSignal, step: int) -> bool:
    """Whether a signal to stop came; several processes agree on the step at which they stop."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(step)
    return stop.received
