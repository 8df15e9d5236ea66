"""Defines the in-memory state of a run, fresh or restored, for the training loop."""

import contextlib
import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fer_jax import batch_inference
from fer_jax.data import augment, pipeline, preprocessing
from fer_jax.evaluation import leakage_policy, run_info
from fer_jax.evaluation.metrics import classification
from fer_jax.evaluation.report import training_curves
from fer_jax.pretrained.imagenet import Pretrained, initialize
from fer_jax.pretrained.weights_file import CHECKPOINTS, export_weights
from fer_jax.training import build, distillation, initial_weights, sharding, stages, train_step, training_data
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.metric_writers import Writers, parameter_overview
from fer_jax.training.monitoring import PreemptedError, StopSignal, Window
from fer_jax.training.run_dir import flatten, keep_pretrained, kept_pretrained
from fer_jax.training.split_prediction import StoppedError, predict_split
from fer_jax.training.state import TrainState, create_state, random_variables
from fer_jax.training.validate import Plan


class Run:
    """A run in memory.

    Attributes:
      state: the `TrainState`, placed on the devices.
      step: number of completed steps, as a Python int; with accumulated gradients an update takes several.
      total_steps: number of steps of the run.
      evaluation_due: whether to evaluate before the next step.
      stage: stage of the next step.
      constants: further arguments of the training step: the teachers' weights.
      plateau_tracker: tracker of the selection metric.
      metadata: metadata of checkpoints, without an evaluation.
    """

    def __init__(self, plan: Plan, workdir: pathlib.Path, stop: StopSignal):
        """Builds the run, and restores the newest checkpoint if there is one.

        Raises:
          ValueError: the config is invalid; the message names the field.
          PreemptedError: a stop signal arrived while the teachers predicted.
        """
        config = plan.config
        self.plan, self.config, self.workdir, self.stop = plan, config, workdir, stop
        # Every process saves, because Orbax synchronizes them; only the first one writes other files.
        self.primary = jax.process_index() == 0
        mixes, batch_size = plan.augmentation.mixes, config.train.batch_size
        self.partitioner = sharding.make_partitioner(config.parallel, batch_size, mixes)
        devices = jax.devices()
        logging.info("%s on %d x %s", self.partitioner.mode, len(devices), devices[0].device_kind)
        self.checkpoints = Checkpoints(workdir / CHECKPOINTS, config.checkpoint.keep)
        teachers = plan.teachers
        train, training = training_data.clean(plan.splits["train"], config.data, plan.excluded)
        self.teaching: dict[str, Any] = {}
        self.constants: list[Any] = []
        if teachers and config.distill.views == "plain":
            train = self._blend(train)
        elif teachers:
            how = config.distill.weight, config.distill.temperature, config.augment.fill, config.model.dtype
            taught = distillation.Distillation(teachers, *how)
            self.teaching = {"teacher_loss": taught.loss, "teacher_weight": taught.weight}
            self.constants = [self.partitioner.put_state(taught.variables)]
        self.selection = plan.splits[config.selection.split]
        self.stream = pipeline.TrainStream(
            train,
            batch_size,
            plan.augmentation,
            config.seed,
            balancing=config.data.balanced_sampling,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=config.data.num_workers,
        )
        per_epoch = self.stream.batches_per_epoch
        self.steps_per_evaluation = config.train.eval_steps or config.train.eval_epochs * per_epoch
        self.loss_fn = build.loss(config.loss, train)
        self.plateau_tracker = build.plateau_tracker(config)
        pretrained = self._pretrained()
        start = pretrained and pretrained.metadata
        conventions = start and start["conventions"]
        self.model = build.model(config.model, config.data.num_classes, config.train.sizes, conventions)
        self.preprocess = build.preprocess(config, start)
        self.stages = build.make_stages(config, plan.stage_configs, self.model, per_epoch, start)
        self.total_steps = self.stages[-1].end
        # Evaluation uses float32, whatever the training dtype.
        evaluated = self.model.clone(dtype="float32")
        forward = preprocessing.make_forward(evaluated, size=config.model.input_size, **self.preprocess)
        self.forward = batch_inference.compile_forward(forward)
        self.metadata = build.metadata(config, plan.manifest, training, self.preprocess, start)
        parents = [teacher.metadata for teacher in teachers]
        parents += [start["run"]] if start and "run" in start else []
        for parent in parents:
            self.metadata = leakage_policy.inherit(self.metadata, parent)
        self._train_steps: dict[int, Callable[..., Any]] = {}
        self._start(pretrained)

    def _blend(self, train: Any) -> Any:
        """Returns the training faces with the teachers' predictions blended into their targets."""
        config, dataset = self.config, self.plan.manifest["splits"]["train"].get("order_hash")
        teachers, weight = self.plan.teachers, config.distill.weight
        try:
            return distillation.blend(train, teachers, weight, self.workdir, dataset, self.stop)
        except StoppedError:
            raise PreemptedError(max(self.checkpoints.steps(), default=0)) from None

    def _pretrained(self) -> Pretrained | None:
        """Returns the initial weights; a resumed run needs only their metadata."""
        if not self.config.init_from and self.config.init.weights == "none":
            return None  # ignores leftovers of a start that saved nothing, see `check_identity`
        if self.checkpoints.steps() and (found := kept_pretrained(self.workdir)):
            return Pretrained({}, found)
        loaded = initial_weights.pretrained(self.config)
        if loaded and self.primary:
            keep_pretrained(self.workdir, loaded.metadata)
        return loaded

    def _start(self, pretrained: Pretrained | None) -> None:
        """Creates a fresh state, or restores the newest undamaged checkpoint."""
        config, side = self.config, self.config.model.input_size
        input_shape = (side, side, config.model.channels)
        variables = None  # random weights; a resumed run has its own
        if pretrained and not self.checkpoints.steps():
            variables = pretrained.variables
            if not config.init_from:
                variables = initialize(random_variables(self.model, input_shape, config.seed), pretrained)
        self.stage = self.stages[0]
        state = create_state(
            self.model,
            self.stage.tx,
            input_shape=input_shape,
            seed=config.seed,
            use_ema=bool(config.train.ema_decay),
            variables=variables,
            trained=self.stage.trained,
        )
        state = jax.tree.map(np.asarray, state)
        logging.info("parameters:\n%s", parameter_overview(state.params))
        self.metadata["parameters"] = sum(p.size for p in jax.tree.leaves(state.params))
        self.step, self.evaluation_due = 0, False
        extra: dict[str, Any] = {}
        needed = ("stream", "watch", "facts")
        if restored := self.checkpoints.restore_newest(
            lambda step: _for_stage(state, self.stage_at(step)), needed
        ):
            self.step, state, extra = restored.step, restored.state, restored.extra
            self.stage = self.stage_at(self.step)
            self.stream.restore(extra["stream"])
            self.plateau_tracker.restore(extra["watch"])
            self.stream.wait_seconds = extra.get("wait_seconds", 0.0)
            self.evaluation_due = extra.get("evaluation_due", False)
            self.metadata = extra["facts"]
            logging.info("resuming from step %d of %d", self.step, self.total_steps)
        self.window = Window(self.partitioner.fetch, extra.get("window"))
        self.state = self.partitioner.put_state(state)
        if not self.primary:
            return
        self.writers = Writers(self.workdir, self.step)
        run_info.record_start(self.workdir, self.step)
        if not self.step:
            self._show_start()

    def _show_start(self) -> None:
        """Writes the hyperparameters and a sheet of the first augmented faces."""
        self.writers.hparams(flatten(self.metadata["config"]))
        mean, fill = float(np.mean(self.preprocess["mean"])), self.plan.augmentation.fill
        sheet = pipeline.contact_sheet(next(self.stream), self.input_size(), fill, mean)
        self.stream.restore({"next_batch": 0})
        self.stream.wait_seconds = 0.0
        training_curves.save_image(sheet, self.workdir / "augmented_faces.png")
        self.writers.image(0, "augmented_faces", lambda: sheet)

    @property
    def epoch(self) -> float:
        """Returns the number of completed epochs."""
        return self.step / self.stream.batches_per_epoch

    def is_evaluated_at(self, step: int) -> bool:
        """Returns whether an evaluation follows a step."""
        number = round(step / self.steps_per_evaluation)
        near = (number - 1, number, number + 1)
        return step == self.total_steps or step in (round(n * self.steps_per_evaluation) for n in near)

    def stage_at(self, step: int) -> stages.Stage:
        """Returns the stage that the step after `step` belongs to."""
        return next((stage for stage in self.stages if step < stage.end), self.stages[-1])

    def enter_stage(self) -> None:
        """Enters the stage of the next step, with a new optimizer, if it starts here."""
        stage = self.stage_at(self.step)
        if stage is self.stage and self.step != stage.start:
            return
        self.stage = stage
        self._train_steps.clear()
        self.plateau_tracker.start_stage()
        state = _for_stage(self.partitioner.fetch(self.state), stage)
        scale = np.float32(self.plateau_tracker.scale)
        self.state = self.partitioner.put_state(state.replace(lr_scale=scale))

    def input_size(self) -> int:
        """Returns the input size of the next step."""
        for until, size in self.config.train.sizes:
            if self.step < until * self.total_steps:
                return size
        return self.config.model.input_size

    def next_batch(self) -> dict[str, Any]:
        """Returns the next batch, placed on the devices."""
        batch = next(self.stream)
        if self.plan.augmentation.mixes and self.step >= self.config.train.mix_until * self.total_steps:
            batch["mix"] = augment.identity(len(batch["mix"]))["mix"]
        return self.partitioner.put_batch(batch)

    def is_compiled(self, size: int) -> bool:
        """Returns whether the step of this stage is compiled for an input size."""
        return size in self._train_steps

    def train_step(self, size: int) -> Callable[..., Any]:
        """Returns the training step (state, batch, *constants) of this stage for an input size."""
        if size not in self._train_steps:
            self._train_steps[size] = self.compile_step(size)
        return self._train_steps[size]

    def compile_step(self, size: int) -> Callable[..., Any]:
        """Compiles the training step of this stage for an input size."""
        config, axis_name = self.config, self.partitioner.axis_name
        frozen: dict[str, Any] = {"frozen": self.stage.frozen} if self.stage.frozen else {}
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
            **self.teaching,
        )
        return self.partitioner.compile(step, len(self.constants))

    def report(self) -> str:
        """Writes the metrics of the window; returns a summary for the progress bar."""
        values = self.window.summary(self.config.train.batch_size, self.stream.wait_seconds)
        self.stream.wait_seconds = 0.0
        update = (self.step - 1 - self.stage.start) // self.config.optim.accumulate
        rate = float(np.asarray(self.stage.learning_rate(update)))
        values["learning_rate"] = rate * self.plateau_tracker.scale
        if self.primary:
            self.writers.scalars(self.step, self.epoch, "train", values)
        return (
            f"loss {values['loss']:.3f} acc {values['accuracy']:.3f} "
            f"{values['images_per_second']:.0f} img/s wait {values['input_wait']:.1%}"
        )

    def predict(self, variables: dict[str, Any]) -> np.ndarray:
        """Returns probabilities float64 [N, K] on the selection split.

        Raises:
          StoppedError: a stop signal arrived.
        """
        forward = functools.partial(batch_inference.predict, self.forward, variables, progress=False)
        return predict_split(forward, self.selection.images, self.stop)

    def evaluate(self) -> dict[str, Any]:
        """Evaluates the selection split, updates the plateau tracker, and writes the weights.

        Returns:
          The result, as in "evaluation" of the metadata.

        Raises:
          StoppedError: a stop signal arrived; nothing has changed.
        """
        variables, labels = self.partitioner.fetch(self.state.variables()), self.selection.labels
        probs = self.predict(variables)
        matrix = classification.confusion_matrix(probs, labels)
        scores = classification.scores(matrix)
        values = {"loss": float(classification.nll(probs, labels).mean())}
        values |= {name: float(scores[name]) for name in build.SELECTION_METRICS}
        if jax.process_count() > 1:
            # All processes must use the same metric, without rounding differences.
            values = jax.tree.map(float, multihost_utils.broadcast_one_to_all(values))
        split, metric = self.config.selection.split, self.config.selection.metric
        best = self.plateau_tracker.update(values[metric], self.step)
        scale = self.partitioner.put_state(np.float32(self.plateau_tracker.scale))
        self.state = self.state.replace(lr_scale=scale)
        self.evaluation_due = False
        result = {"split": split, "metric": metric, "value": values[metric]}
        result |= {"step": self.step, "epoch": round(self.epoch, 2)}
        with sharding.all_or_none():
            if self.primary:
                metadata = self.evaluated_metadata(result)
                for name in ("last", "best") if best else ("last",):
                    path = self.workdir / f"{name}.safetensors"
                    export_weights(path, variables, metadata, self.config.checkpoint.dtype)
                self._report_evaluation(values, matrix, best)
        return result

    def evaluated_metadata(self, result: dict[str, Any] | None) -> dict[str, Any]:
        """Returns the metadata with the result of an evaluation at this step, if there is one."""
        best = result is not None and self.plateau_tracker.best_step == result["step"]
        return self.metadata | {"evaluation": result, "selection": result if best else None}

    def _report_evaluation(self, values: dict[str, float], matrix: np.ndarray, best: bool) -> None:
        self.writers.scalars(self.step, self.epoch, "eval", values)
        names = self.metadata["emotions"]
        self.writers.image(
            self.step, "confusion_matrix", lambda: training_curves.confusion_image(matrix, names)
        )
        self.writers.flush()
        numbers = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        split, note = self.config.selection.split, " (best)" if best else ""
        logging.info("epoch %.1f: %s %s%s", self.epoch, split, numbers, note)

    def save(self, result: dict[str, Any] | None) -> None:
        """Saves a checkpoint, with the result of the evaluation at this step if there is one."""
        extra = {
            "stream": self.stream.state(),
            "watch": self.plateau_tracker.state(),
            "window": self.window.state(),
            "wait_seconds": self.stream.wait_seconds,
            "evaluation_due": self.evaluation_due,
            "facts": self.evaluated_metadata(result),
        }
        state = self.partitioner.fetch(self.state)
        self.checkpoints.save(self.step, state, extra, result["value"] if result else None)

    def close(self) -> None:
        """Waits for the last save and stops prefetching."""
        with contextlib.ExitStack() as stack:  # runs all, even if one of them raises
            if self.primary:
                stack.callback(self.writers.flush)
            stack.callback(self.stream.close)
            self.checkpoints.close()


def _for_stage(state: TrainState, stage: stages.Stage) -> TrainState:
    """Returns the state (NumPy) with a new optimizer state for a stage."""
    opt_state = stage.tx.init(stages.partition(state.params, stage.trained)[0])
    return state.replace(opt_state=jax.tree.map(np.asarray, opt_state))
