"""The training loop, read from top to bottom: data, model, state, steps, evaluations, checkpoints, report."""

import contextlib
import json
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from fer_jax import batch_inference, preprocessing, runtime
from fer_jax.data import augment, pipeline, splits
from fer_jax.data.dataset import read
from fer_jax.evaluation import leakage, leakage_policy, run_info
from fer_jax.evaluation.metrics import calibration, classification
from fer_jax.evaluation.report import report, training_curves
from fer_jax.loaded_model import LoadedModel
from fer_jax.pretrained.weights import Pretrained, initialise
from fer_jax.training import build, distillation, sharding, stages, train_step, validate
from fer_jax.training.checkpoints import Checkpoints, all_processes
from fer_jax.training.metric_writers import Writers, parameter_overview, progress_bar, read_records
from fer_jax.training.monitoring import PreemptedError, StopSignal, Window
from fer_jax.training.run_dir import (
    claim,
    exclusive,
    finish,
    finished_summary,
    flatten,
    keep_pretrained,
    kept_pretrained,
)
from fer_jax.training.state import TrainState, create_state, random_variables
from fer_jax.weights_file import (
    BEST_WEIGHTS,
    CHECKPOINTS,
    DamagedCheckpointError,
    export_weights,
    load_weights,
)


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
      FileNotFoundError: no weights at `config.init_from` or `config.distill.teachers`, or no file
        `config.data.drop_ids`.
      DamagedCheckpointError: one of these weights cannot be read.
      NonFiniteLossError: the loss became NaN or infinite; the checkpoints before it stay.
      PreemptedError: SIGTERM or Ctrl-C came; the state is saved.
    """
    workdir = pathlib.Path(workdir)
    manifest = read.read_manifest(config.data.dir)
    with contextlib.ExitStack() as held:
        with _all_or_none():
            teachers = build.teachers(config)
            wanted = identity(config, manifest, teachers)
            held.enter_context(exclusive(workdir))
            claim(workdir, wanted)
        if summary := finished_summary(workdir):
            logging.info("this run is finished; its report is %s", workdir / "report" / "report.md")
            return summary
        with StopSignal() as stop:
            run = Run(config, workdir, manifest, teachers)
            try:
                while run.step < run.total_steps and not run.watch.should_stop:
                    run.train_until(min(run.next_evaluation(), run.total_steps), stop)
                    run.evaluate()
                    if _preempted(stop, run.step):
                        raise PreemptedError(run.step)
            finally:
                run.close()
            return run.summarize()


def identity(config: ConfigDict, manifest: dict[str, Any], teachers: Sequence[LoadedModel]) -> dict[str, Any]:
    """What a run is, for `run_dir.claim`: its configuration, and hashes of what it reads.

    Args:
      config: of the run.
      manifest: of its dataset.
      teachers: see `build.teachers`.

    Returns:
      The fields by their dotted names as JSON has them, "train_hash" and that of the selection split,
      "drop_ids_hash" (None without such a file) and "teachers", the digests of their weights.

    Raises:
      FileNotFoundError: no file `config.data.drop_ids`.
      ValueError: that file cannot be read.
    """
    # Other splits may change, such as a test split that is added for the final score.
    used = {split: manifest["splits"].get(split, {}) for split in ("train", config.selection.split)}
    listed = build.drop_list(config)
    return {
        **{f"{split}_hash": of.get("order_hash") for split, of in used.items()},
        **flatten(json.loads(config.to_json_best_effort())),
        "drop_ids_hash": listed and listed.digest,
        "teachers": [teacher.digest for teacher in teachers],
    }


class Run:
    """A run in memory.

    Attributes:
      state: the `TrainState`, placed on the devices.
      step: steps done, as a Python int; with accumulated gradients an update takes several.
      total_steps: of the whole run.
      stage: the stage that the next step belongs to.
      watch: the best metric so far, early stopping and the plateau's factor.
      facts: what every checkpoint says of itself.
      constants: what the training step takes besides state and batch, on the devices: the teachers' weights.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: pathlib.Path,
        manifest: dict[str, Any],
        teachers: Sequence[LoadedModel],
    ):
        self.config, self.workdir = config, workdir
        self._train_steps: dict[int, sharding.CompiledStep] = {}
        # One process of several speaks for all; every process saves, for Orbax synchronises them.
        self.primary = jax.process_index() == 0
        validate.check(config)
        self.ranges = build.augmentation(config.augment)
        self.placement = sharding.place(config.parallel, config.train.batch_size, self.ranges.mixes)
        logging.info("%s on %d x %s", self.placement.mode, jax.device_count(), jax.devices()[0].device_kind)
        self.distillation = build.distillation(config, teachers)
        self.constants = [self.placement.put_state(d.variables) for d in (self.distillation,) if d]
        train, training = build.load_training(config)
        if teachers and config.distill.views == "plain":
            dataset = manifest["splits"]["train"].get("order_hash")
            train = distillation.blend(train, teachers, config.distill.weight, self.workdir, dataset)
        self.selection = build.load_split(config, config.selection.split)
        self.stream = pipeline.TrainStream(
            train,
            config.train.batch_size,
            self.ranges,
            config.seed,
            balancing=config.data.balanced_sampling,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=config.data.num_workers,
        )
        per_epoch = self.stream.batches_per_epoch
        self.steps_per_evaluation = config.train.eval_steps or config.train.eval_epochs * per_epoch
        self.loss_fn = build.loss(config.loss, train)
        self.watch = build.watch(config)
        self.checkpoints = Checkpoints(self.workdir / CHECKPOINTS, config.checkpoint.keep)
        pretrained = self._pretrained()
        start = pretrained and pretrained.metadata
        conventions = start and start["conventions"]
        self.model = build.model(config.model, config.data.num_classes, config.train.sizes, conventions)
        self.preprocess = build.preprocess(config, start)
        self.stages = build.make_stages(config, self.model, per_epoch, start)
        self.total_steps = self.stages[-1].end
        # Whatever training computes in: the weights are float32, and so is what they are served in.
        served = self.model.clone(dtype="float32")
        forward = preprocessing.make_forward(served, size=config.model.input_size, **self.preprocess)
        self.forward = batch_inference.compile_forward(forward, runtime.compiler_options())
        self.facts = build.facts(config, manifest, training, self.preprocess, start)
        parents = [teacher.metadata for teacher in teachers]
        parents += [start["run"]] if start and "run" in start else []
        for parent in parents:
            self.facts = leakage_policy.inherit(self.facts, parent)
        self._start(pretrained)

    def _pretrained(self) -> Pretrained | None:
        """The weights to start from; a run that goes on needs only what is known about them."""
        if not self.config.init_from and self.config.init.weights == "none":
            return None  # whatever a start that saved nothing left here, see `claim`
        if self.checkpoints.steps() and (facts := kept_pretrained(self.workdir)):
            return Pretrained({}, facts)
        found = build.pretrained(self.config)
        if self.primary:
            keep_pretrained(self.workdir, found.metadata)
        return found

    def _start(self, pretrained: Pretrained | None) -> None:
        """A fresh state, or the newest whole checkpoint."""
        config, side = self.config, self.config.model.input_size
        self.stage = self.stages[0]
        state = create_state(
            self.model,
            self.stage.tx,
            input_shape=(side, side, config.model.channels),
            seed=config.seed,
            use_ema=bool(config.train.ema_decay),
            variables=self._initial_variables(pretrained),
            trained=self.stage.trained,
        )
        state = jax.tree.map(np.asarray, state)
        logging.info("parameters:\n%s", parameter_overview(state.params))
        self.facts["parameters"] = sum(p.size for p in jax.tree.leaves(state.params))
        self.step = 0
        self.window = Window(self.placement.fetch)
        if restored := self.checkpoints.restore_newest(lambda step: _for_stage(state, self.stage_at(step))):
            self.stage = self.stage_at(restored.step)
            self.step, state = restored.step, restored.state
            self.stream.restore(restored.extra["stream"])
            self.watch.restore(restored.extra["watch"])
            self.window = Window(self.placement.fetch, restored.extra.get("window"))
            self.stream.wait_seconds = restored.extra.get("wait_seconds", 0.0)
            self.facts = restored.extra["facts"]
            logging.info("going on from step %d of %d", self.step, self.total_steps)
        self.state = self.placement.put_state(state)
        self.writers = Writers(self.workdir, self.step) if self.primary else None
        if self.primary:
            run_info.record_start(self.workdir, self.step)
        if self.primary and not self.step:
            self._show_start()

    def _initial_variables(self, pretrained: Pretrained | None) -> dict[str, Any] | None:
        """Weights to start from, None for random ones; a run that goes on has its own."""
        config, side = self.config, self.config.model.input_size
        if self.checkpoints.steps() or not pretrained:
            return None
        if config.init_from:
            return pretrained.variables
        shape = (side, side, config.model.channels)
        return initialise(random_variables(self.model, shape, config.seed), pretrained)

    def _show_start(self) -> None:
        """The hyper-parameters, and a sheet of the first augmented faces."""
        self.writers.hparams(flatten(self.facts["config"]))
        mean = float(np.mean(self.preprocess["mean"]))
        sheet = pipeline.contact_sheet(next(self.stream), self.input_size(), self.ranges.fill, mean)
        self.stream.restore({"next_batch": 0})
        self.stream.wait_seconds = 0.0
        training_curves.save_image(sheet, self.workdir / "augmented_faces.png")
        self.writers.image(0, "augmented_faces", lambda: sheet)

    @property
    def epoch(self) -> float:
        return self.step / self.stream.batches_per_epoch

    def next_evaluation(self) -> int:
        """The next step after which to evaluate."""
        number = int(self.step / self.steps_per_evaluation)
        while round(number * self.steps_per_evaluation) <= self.step:
            number += 1
        return round(number * self.steps_per_evaluation)

    def stage_at(self, step: int) -> stages.Stage:
        """The stage that the step after `step` belongs to."""
        return next((stage for stage in self.stages if step < stage.end), self.stages[-1])

    def enter_stage(self) -> None:
        """Begins the stage that is due, if another one is running: a new optimizer for what it trains."""
        stage = self.stage_at(self.step)
        if stage is self.stage:
            return
        self.stage = stage
        self._train_steps.clear()
        self.watch.start_stage()
        state = _for_stage(self.placement.fetch(self.state), stage)
        self.state = self.placement.put_state(state.replace(lr_scale=np.float32(self.watch.scale)))

    def input_size(self) -> int:
        """The size at which faces are drawn at this step."""
        for until, size in self.config.train.sizes:
            if self.step < until * self.total_steps:
                return size
        return self.config.model.input_size

    def train_step(self, size: int) -> sharding.CompiledStep:
        """The compiled step for an input size."""
        if size not in self._train_steps:
            self._train_steps[size] = self.compile_step(size)
        return self._train_steps[size]

    def compile_step(self, size: int) -> sharding.CompiledStep:
        """The step of this stage for an input size, made anew."""
        config = self.config
        axis_name = self.placement.axis_name
        frozen = {"frozen": self.stage.frozen} if self.stage.frozen else {}
        taught = self.distillation
        teaching = {"teacher_loss": taught.loss, "teacher_weight": taught.weight} if taught else {}
        step = train_step.make_train_step(
            self.model.clone(axis_name=axis_name, **frozen),
            self.stage.tx,
            self.loss_fn,
            size=size,
            **self.preprocess,
            ema_decay=config.train.ema_decay,
            sharpness_radius=config.optim.sharpness_radius,
            accumulate=config.optim.accumulate,
            trained=self.stage.trained,
            axis_name=axis_name,
            **teaching,
        )
        return self.placement.compile(step, *self.constants)

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
                self.enter_stage()
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
        update = (self.step - 1 - self.stage.start) // self.config.optim.accumulate
        values["learning_rate"] = float(self.stage.learning_rate(update)) * self.watch.scale
        if self.primary:
            self.writers.scalars(self.step, self.epoch, "train", values)
        return (
            f"loss {values['loss']:.3f} acc {values['accuracy']:.3f} "
            f"{values['images_per_second']:.0f} img/s wait {values['input_wait']:.1%}"
        )

    def evaluate(self) -> None:
        """Evaluates on the selection split, keeps the weights if they are the best, and saves."""
        variables, labels = self.placement.fetch(self.state.variables()), self.selection.labels
        probs = batch_inference.predict(self.forward, variables, self.selection.images, progress=False)
        scores = classification.scores(classification.confusion_matrix(probs, labels))
        values = {"loss": float(classification.nll(probs, labels).mean())}
        values |= {name: float(scores[name]) for name in build.SELECTION_METRICS}
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
        matrix = classification.confusion_matrix(probs, self.selection.labels)
        self.writers.image(
            self.step,
            "confusion_matrix",
            lambda: training_curves.confusion_image(matrix, self.facts["emotions"]),
        )
        self.writers.flush()
        numbers = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        split, note = self.config.selection.split, " (best)" if best else ""
        logging.info("epoch %.1f: %s %s%s", self.epoch, split, numbers, note)

    def save(self, selection: float | None = None) -> None:
        """Saves everything that a resumed run needs."""
        self.enter_stage()  # what is saved is of the stage of the next step
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

    def _best_weights(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The file of the best weights, and the facts in it.

        After a fall back to an older checkpoint the file may be of a future that did not come again:
        then it is written anew from the best checkpoint.
        """
        path = self.workdir / BEST_WEIGHTS
        try:
            variables, facts = load_weights(path)
            found = (facts["selection"] or {}).get("step")
        except (FileNotFoundError, DamagedCheckpointError):
            found = None
        if not all_processes(found == self.watch.best_step):
            # Orbax reads with all processes together.
            variables, facts = load_weights(self.workdir / CHECKPOINTS / str(self.watch.best_step))
            if self.primary:
                export_weights(path, variables, facts, self.config.checkpoint.dtype)
                variables, facts = load_weights(path)  # whose kernels may be float16
        return variables, facts

    def summarize(self) -> dict[str, Any]:
        """The report on the best weights, the curves and the summary that marks the run as finished."""
        variables, facts = self._best_weights()
        if not self.primary:
            return {"steps": self.step}
        probs = batch_inference.predict(self.forward, variables, self.selection.images, progress=False)
        facts["calibration"] = calibration.calibrate(probs, self.selection.labels) | {
            "split": self.config.selection.split,
            "split_hash": leakage_policy.split_hash(facts["data"], self.config.selection.split),
        }
        export_weights(self.workdir / BEST_WEIGHTS, variables, facts, self.config.checkpoint.dtype)
        images = self.selection.images
        result = report.write_report(
            self.workdir / "report",
            probs,
            self.selection.labels,
            self.selection.ids,
            facts=facts
            | {
                "split": self.config.selection.split,
                "checkpoint": str(self.workdir / BEST_WEIGHTS),
                "tta": "none",
            },
            images=images,
            groups=splits.duplicate_groups(images),
            copies=leakage.find_duplicates(
                images, build.load_split(self.config, "train").images, progress=False
            ),
        )
        records = list(read_records(self.workdir))
        metric = self.config.selection.metric
        training_curves.plot_training(records, self.workdir / "training_curves.png", metric=metric)
        training = [record for record in records if record["kind"] == "train"]
        seconds = np.array([record["seconds"] for record in training])
        waits = np.array([record["input_wait"] for record in training])
        summary = {
            "best": facts["selection"],
            "steps": self.step,
            "seconds": round(float(seconds.sum()), 1),
            "input_wait": float(waits @ seconds / max(seconds.sum(), 1e-9)),
            "accuracy": result["accuracy"],
            "macro_f1": result["macro_f1"],
            "stopped_early": self.step < self.total_steps,
        }
        finish(self.workdir, summary)
        return summary


def _for_stage(state: TrainState, stage: stages.Stage) -> TrainState:
    """A state (NumPy) with the optimizer of a stage at its start."""
    opt_state = stage.tx.init(stages.partition(state.params, stage.trained)[0])
    return state.replace(opt_state=jax.tree.map(np.asarray, opt_state))


@contextlib.contextmanager
def _all_or_none() -> Iterator[None]:
    """What one of several processes refuses within the context, all refuse after it."""
    problem = None
    try:
        yield
    except (OSError, ValueError, DamagedCheckpointError) as error:
        problem = error
    if not all_processes(problem is None):
        raise problem or ValueError("another process of this run refused to start; its message says why")


def _preempted(stop: StopSignal, step: int) -> bool:
    """Whether a signal to stop came; several processes agree on the step at which they stop."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(step)
    return stop.received
