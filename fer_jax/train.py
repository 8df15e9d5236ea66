"""The training loop, read from top to bottom: data, model, state, steps, evaluations, checkpoints, report."""

import functools
import json
import logging
import pathlib
import time
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

import fer_jax
from fer_jax import losses, models, optim, parallel, platform, steps
from fer_jax.checkpoints import BEST_WEIGHTS, CHECKPOINTS, Checkpoints, export_weights, load_weights
from fer_jax.data import augment, builder, pipeline, splits
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.faces import Faces
from fer_jax.evaluation import curves, predict, report, statistics
from fer_jax.monitor import PreemptedError, TermSignal, Window
from fer_jax.state import create_state
from fer_jax.workdir import claim, finish, finished_summary
from fer_jax.writers import Writers, progress_bar, read_records

def train_and_evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Trains, resumes or recognises a finished run, and evaluates its best checkpoint.

    Args:
      config: as made by `configs/default.py` and its experiments.
      workdir: the run's directory; made here, continued where it holds the same run.

    Returns:
      The summary that also lies in `summary.json`: the best metric and its step, steps done, seconds,
      images a second, share of time waiting for input, the report's figures.

    Raises:
      ValueError: the config cannot work (the message names the field) or is another than the directory's.
      FileNotFoundError: no prepared data at `config.data.dir`.
      NonFiniteLossError: the loss became NaN or infinite; the last good checkpoint stays.
      PreemptedError: SIGTERM came; the state is saved.
    """
    platform.tune_cpu()
    workdir = pathlib.Path(workdir)
    manifest = builder.read_manifest(config.data.dir)
    claim(workdir, config, manifest["content_hash"])
    if summary := finished_summary(workdir):
        logging.info("this run is finished: %s", workdir / "report" / "report.md")
        return summary

    run = Run(config, workdir, manifest)
    started = time.perf_counter()
    while run.step < run.total_steps and not run.watch.should_stop:
        run.train_until(min(run.next_boundary(), run.total_steps))
    run.close()
    return run.finish(time.perf_counter() - started)


class Run:
    """A run in memory: what the loop needs, built from the config and the newest checkpoint."""

    def __init__(self, config: ConfigDict, workdir: pathlib.Path, manifest: dict[str, Any]):
        self.config, self.workdir = config, workdir
        self.ranges = _ranges(config.augment)
        train = _load(config, "train")
        self.selection = _load(config, config.selection.split)
        if config.data.drop_blank or config.data.merge_twins:
            train, cleaned = splits.clean_train(
                train, drop_blank=config.data.drop_blank, merge_twins=config.data.merge_twins
            )
            logging.info("training faces after cleaning: %d (%s)", len(train), cleaned)
        size = config.train.batch_size
        self.placement = parallel.place(config.parallel, size, self.ranges.mixes)
        self.stream = pipeline.TrainStream(
            train,
            size,
            self.ranges,
            config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=config.data.num_workers,
        )
        per_epoch = self.stream.batches_per_epoch
        self.total_steps = config.train.steps or max(1, round(config.train.epochs * per_epoch))
        self.eval_interval = config.train.eval_epochs * per_epoch
        self.preprocess = {
            "mean": config.model.mean,
            "std": config.model.std,
            "channels": config.model.channels,
            "fill": self.ranges.fill,
        }
        kwargs = {"dtype": config.model.dtype, **config.model.kwargs.to_dict()}
        self.model = models.create(config.model.name, len(EMOTIONS), **kwargs)
        self.learning_rate = self._learning_rate(per_epoch)
        self._step_functions: dict[int, Any] = {}
        self.loss_fn = self._loss(train)
        self.tx = optim.make_optimizer(
            config.optim.name,
            self.learning_rate,
            momentum=config.optim.momentum,
            weight_decay=config.optim.weight_decay,
            clip_norm=config.optim.clip_norm,
            accumulate=config.optim.accumulate,
        )
        plateau = config.optim.schedule == "plateau"
        self.watch = optim.Watch(
            patience=config.selection.patience,
            plateau_patience=config.optim.plateau_patience if plateau else 0,
            plateau_factor=config.optim.plateau_factor,
            min_scale=config.optim.plateau_min_scale,
        )
        forward = steps.make_forward(self.model, size=config.model.input_size, **self.preprocess)
        self.forward = predict.compile_forward(forward, platform.compiler_options())
        self.facts = self._facts(manifest, kwargs)
        self.checkpoints = Checkpoints(workdir / CHECKPOINTS, config.checkpoint.keep)
        self._start()

    def _learning_rate(self, per_epoch: float):
        optimizer = self.config.optim
        # The schedule counts updates, of which an accumulated gradient makes fewer than steps.
        updates = per_epoch / optimizer.accumulate
        return optim.learning_rate(
            optimizer.schedule,
            peak=optimizer.learning_rate,
            total_steps=max(1, self.total_steps // optimizer.accumulate),
            warmup_steps=round(optimizer.warmup_epochs * updates),
            step_boundaries=[round(epoch * updates) for epoch in optimizer.step_epochs],
            step_factor=optimizer.step_factor,
        )

    def _loss(self, train: Faces):
        loss, weights = self.config.loss, None
        if loss.class_weights == "balanced":
            weights = losses.balanced_class_weights(np.bincount(train.labels, minlength=len(EMOTIONS)))
            logging.info("class weights: %s", dict(zip(EMOTIONS, weights.round(2).tolist(), strict=True)))
        elif loss.class_weights != "none":
            raise ValueError(
                f"config.loss.class_weights is {loss.class_weights!r}; there are: none, balanced"
            )
        return functools.partial(
            losses.cross_entropy,
            label_smoothing=loss.label_smoothing,
            class_weights=weights,
            focal_gamma=loss.focal_gamma,
            normalization=loss.normalization,
        )

    def _facts(self, manifest: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """What every checkpoint says of itself; `selection` is filled in at each evaluation."""
        return {
            "version": fer_jax.__version__,
            "model": {"name": self.config.model.name, "kwargs": kwargs},
            "preprocess": {"image_size": self.config.model.input_size, **self.preprocess},
            "emotions": list(EMOTIONS),
            "config": json.loads(self.config.to_json_best_effort()),
            "data_hash": manifest["content_hash"],
            "data": {key: manifest[key] for key in ("name", "source_kind", "splits")},
            "seed": self.config.seed,
            "ema": bool(self.config.train.ema_decay),
            "selection": None,
        }

    def _start(self) -> None:
        """A fresh state or the newest whole checkpoint."""
        config = self.config
        side = config.model.input_size
        state = create_state(
            self.model,
            self.tx,
            input_shape=(side, side, config.model.channels),
            seed=config.seed,
            use_ema=bool(config.train.ema_decay),
            variables=load_weights(config.init_from)[0] if config.init_from else None,
        )
        logging.info("parameters:\n%s", parameter_overview.get_parameter_overview(state.params))
        template = jax.tree.map(np.asarray, state)
        self.step = 0
        if restored := self.checkpoints.restore_newest(template):
            self.step, template = restored.step, restored.state
            self.stream.restore(restored.extra["stream"])
            self.watch.restore(restored.extra["watch"])
            logging.info("going on from step %d of %d", self.step, self.total_steps)
        self.state = self.placement.put_state(template)
        self.writers = Writers(self.workdir, self.step)
        if not self.step:
            self._write_start()

    def _write_start(self) -> None:
        """The hyper-parameters and a sheet of the first augmented faces."""
        flat = ConfigDict(self.facts["config"])
        self.writers.hparams(
            {f"{a}.{b}": v for a, sub in flat.items() if isinstance(sub, ConfigDict) for b, v in sub.items()}
        )
        batch = next(self.stream)
        sheet = pipeline.contact_sheet(
            batch, self.config.model.input_size, self.ranges.fill, self.config.model.mean
        )
        self.stream.restore({"next_batch": 0})
        curves.save_image(sheet, self.workdir / "augmented_faces.png")
        self.writers.image(0, "augmented_faces", sheet)

    def step_function(self, step: int):
        """The compiled step for the input size that holds at `step`."""
        size = self.config.model.input_size
        for until, smaller in self.config.train.sizes:
            if step < until * self.total_steps:
                size = smaller
                break
        if size not in self._step_functions:
            model = self.model.clone(axis_name=self.placement.axis_name)
            function = steps.make_train_step(
                model,
                self.tx,
                self.loss_fn,
                size=size,
                **self.preprocess,
                ema_decay=self.config.train.ema_decay,
                accumulate=self.config.optim.accumulate,
                axis_name=self.placement.axis_name,
            )
            self._step_functions[size] = self.placement.compile(function)
        return self._step_functions[size]

    def next_boundary(self) -> int:
        """The next step after which to evaluate."""
        number = int(self.step / self.eval_interval)
        while round(number * self.eval_interval) <= self.step:
            number += 1
        return round(number * self.eval_interval)

    def train_until(self, end: int) -> None:
        """Trains up to step `end`, evaluates there and saves."""
        config, every = self.config, self.config.checkpoint.every_steps
        mix_end = config.train.mix_until * self.total_steps
        unmixed = augment.identity(config.train.batch_size // jax.process_count())["mix"]
        window = Window(self.placement.fetch)
        with TermSignal() as term, progress_bar(self.total_steps, self.step) as bar:
            while self.step < end:
                batch = next(self.stream)
                if self.ranges.mixes and self.step >= mix_end:
                    batch["mix"] = unmixed
                self.state, metrics = self.step_function(self.step)(
                    self.state, self.placement.put_batch(batch)
                )
                self.step += 1
                # The step before this one is read while this one computes.
                window.add(self.step, metrics)
                bar.update()
                if self.step % config.log_every == 0 or self.step == end:
                    values = window.summary(config.train.batch_size, self.stream.wait_seconds)
                    self.stream.wait_seconds = 0.0
                    values["learning_rate"] = self.current_rate()
                    self.writers.scalars(self.step, self.epoch, "train", values)
                    bar.set_postfix_str(
                        f"loss {values['loss']:.3f} acc {values['accuracy']:.3f} "
                        f"{values['images_per_second']:.0f} img/s wait {values['input_wait']:.1%}"
                    )
                if term.received or (every and self.step % every == 0 and self.step < end):
                    window.check()
                    self.save(None)
                    if term.received:
                        self.close()
                        raise PreemptedError(self.step)
        self.evaluate()

    @property
    def epoch(self) -> float:
        return self.step / self.stream.batches_per_epoch

    def current_rate(self) -> float:
        update = (self.step - 1) // self.config.optim.accumulate
        return float(self.learning_rate(update)) * self.watch.scale

    def variables(self) -> dict[str, Any]:
        return jax.tree.map(np.asarray, self.placement.fetch(self.state.variables()))

    def evaluate(self) -> None:
        """Evaluates on the selection split, follows the metric and saves."""
        variables = self.variables()
        probs = predict.predict(self.forward, variables, self.selection.images, progress=False)
        labels = self.selection.labels
        values = {
            "loss": statistics.nll(probs, labels),
            "accuracy": statistics.accuracy(probs, labels),
            "balanced_accuracy": statistics.balanced_accuracy(probs, labels),
            "macro_f1": statistics.macro_f1(probs, labels),
        }
        metric = self.config.selection.metric
        if metric not in values:
            raise ValueError(f"config.selection.metric is {metric!r}; there are: {', '.join(values)}")
        value = values[metric] if metric != "loss" else -values[metric]
        best = self.watch.update(value, self.step)
        self.facts["selection"] = {
            "split": self.config.selection.split,
            "metric": metric,
            "value": values[metric],
            "step": self.step,
            "epoch": round(self.epoch, 2),
        }
        self.writers.scalars(self.step, self.epoch, "eval", values)
        matrix = statistics.confusion_matrix(probs, labels)
        self.writers.image(self.step, "confusion_matrix", curves.confusion_image(matrix, EMOTIONS))
        self.writers.flush()
        logging.info(
            "epoch %.1f: %s loss %.4f accuracy %.4f macro_f1 %.4f%s",
            self.epoch,
            self.config.selection.split,
            values["loss"],
            values["accuracy"],
            values["macro_f1"],
            " (best)" if best else "",
        )
        for name in ("last", "best") if best else ("last",):
            path = self.workdir / f"{name}.safetensors"
            export_weights(path, variables, self.facts, self.config.checkpoint.dtype)
        self.save(value)

    def save(self, selection: float | None) -> None:
        """Saves everything that a resumed run needs."""
        state = self.placement.fetch(self.state)
        state = state.replace(lr_scale=np.float32(self.watch.scale))
        self.state = self.state.replace(
            lr_scale=self.placement.put_state(np.float32(self.watch.scale))
        )
        extra = {"stream": self.stream.state(), "watch": self.watch.state(), "facts": self.facts}
        self.checkpoints.save(self.step, state, extra, selection)

    def close(self) -> None:
        """Waits for the last save and ends the read-ahead."""
        self.checkpoints.close()
        self.stream.close()
        self.writers.flush()

    def finish(self, seconds: float) -> dict[str, Any]:
        """The report on the best weights, the curves and `summary.json`."""
        variables, facts = load_weights(self.workdir / BEST_WEIGHTS)
        probs = predict.predict(self.forward, variables, self.selection.images, progress=False)
        directory = self.workdir / "report"
        split = self.config.selection.split
        result = report.write_report(
            directory,
            probs,
            self.selection.labels,
            self.selection.ids,
            facts=facts | {"split": split, "checkpoint": BEST_WEIGHTS, "tta": "none"},
            images=self.selection.images,
        )
        records = list(read_records(self.workdir))
        curves.plot_training(records, self.workdir / "training_curves.png")
        trained = [r for r in records if r["kind"] == "train"]
        summary = {
            "best": facts["selection"],
            "steps": self.step,
            "seconds": round(sum(r["seconds"] for r in trained), 1),
            "seconds_this_process": round(seconds, 1),
            "input_wait": float(np.average([r["input_wait"] for r in trained],
                                           weights=[r["seconds"] for r in trained])),
            "accuracy": result["accuracy"],
            "macro_f1": result["macro_f1"],
            "stopped_early": self.step < self.total_steps,
        }
        finish(self.workdir, summary)
        return summary



def _ranges(config: ConfigDict) -> augment.Ranges:
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config.to_dict().items()}
    return augment.Ranges(**fields)


def _load(config: ConfigDict, split: str) -> Faces:
    faces = builder.load(config.data.dir, split, image_size=config.data.image_size)
    logging.info("%s: %d faces of %s", split, len(faces), faces.image_shape)
    return faces
