"""Tests the validation of configs before training."""

import collections
import importlib
import itertools
import re

import pytest
from helpers import run_within, script
from small_runs import simple_config

from configs.default import get_config
from fer_jax import models
from fer_jax.data.dataset import read
from fer_jax.pretrained.weights_file import DamagedCheckpointError
from fer_jax.training import validate
from fer_jax.training.run_dir import flatten
from fer_jax.training.train import train_and_evaluate


def config_of(**changes):
    """Returns the default config with a small network, and with fields set by dotted names."""
    config = get_config()
    small = {"model.input_size": 16, "model.kwargs": {"widths": (4, 8), "hidden": 8}}
    config.update_from_flattened_dict(small | changes)
    return config


@pytest.mark.parametrize("field", validate._CHOICES)
def test_an_unknown_choice_is_refused(field):
    message = f"config.{field} is 'foo'; there are: {', '.join(validate._CHOICES[field])}"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        validate.check(config_of(**{field: "foo"}))


# Values outside each range; the fields with this range come from the table in `validate`.
OUTSIDE = {
    "more than 0": (0, -1),
    "0 or more": (-1,),
    "0 to 1": (-0.1, 1.5),
    "0 to below 1": (-0.1, 1.0, 1.5),
    "more than 0 and at most 1": (0.0, 1.5),
    "whole numbers above 0": (0, 4.5, (4, 0)),
    "whole numbers, 0 or more": (-8, 0.5, (-1, 1)),
    "1 or 3": (2,),
    "7 or 8": (5, 6),
}
OF_RANGE = {expected: fields.split() for expected, (_, fields) in validate._RANGES.items()}


def refuse_value(field, value, expected):
    if field.startswith("model.kwargs."):
        changes = {"model.kwargs": {field.removeprefix("model.kwargs."): value}}
    else:
        default = validate.field(get_config(), field)
        changes = {field: (value := float(value) if isinstance(default, float) else value)}
    message = f"config.{field} is {value!r}; expected {expected}"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        validate.check(config_of(**changes))


@pytest.mark.parametrize("expected", OF_RANGE)
def test_a_value_out_of_its_range_is_refused(expected):
    for field, value in itertools.product(OF_RANGE[expected], OUTSIDE[expected]):
        refuse_value(field, value, expected)


def test_every_number_has_a_range():
    fields = flatten(get_config().to_dict()).items()
    numbers = {field for field, value in fields if type(value) in (int, float)}
    assert {field.partition(".")[0] for field in numbers - set(sum(OF_RANGE.values(), []))} == {"augment"}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("augment.erasing", 2.0, "a probability in [0, 1]"),
        ("augment.fill", "wrap", "one of reflect, constant"),
        ("model.kwargs.block_dropout", (0.2, 1.5), "0 to below 1"),
        ("model.kwargs.widths", ("a", 8), "finite numbers"),
        ("optim.warmup_epochs", 30.0, "fewer than the 30.0 epochs of the run"),
        *(("optim.boundary_epochs", v, "increasing numbers") for v in ((3.0, 2.0), (2.0, 2.0), (0, 20))),
    ],
)
def test_a_value_that_cannot_be_is_refused(field, value, expected):
    refuse_value(field, value, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["train.epochs", "distill.temperature"])
def test_what_is_no_number_is_refused(field, value):
    with pytest.raises(ValueError, match=f"^config.{field} is {value}; expected finite numbers"):
        validate.check(config_of(**{field: value}))


@pytest.mark.parametrize(
    "sizes",
    [(0.5,), ((0.5, 32, 3),), ((0.0, 32),), ((-0.2, 32),), ((1.2, 32),), ((0.5, 0),), ((0.5, 24), (0.5, 32)),
     ((0.5, 24), (0.2, 32))],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(sizes):
    message = re.escape(f"config.train.sizes is {sizes}; expected ((share of the steps, size), ...)")
    with pytest.raises(
        ValueError, match=f"^{message} with increasing shares, above 0 and at most 1, and sizes"
    ):
        validate.check(config_of(**{"train.sizes": sizes}))


def test_bounds_belong_to_their_ranges():
    kept = {"train.mix_until": 0.0, "optim.momentum": 0.0, "loss.label_smoothing": 0.0, "distill.weight": 1.0}
    kept |= {"optim.warmup_epochs": 29.5, "train.sizes": ((0.5, 24), (1.0, 32))}
    kept |= {"model.kwargs": {"depths": None, "dropout": 0.0, "squeeze": 0}}
    kept |= {"optim.warmup_steps": 10_000}  # different units: the length of an epoch depends on the data
    validate.check(config_of(**kept))


ONE, HEAD, ADJUSTED = {"epochs": 1.0}, {"epochs": 1.0, "train": "head"}, {"loss.logit_adjustment": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.steps": 50, "optim.warmup_steps": 50}, "optim.warmup_steps is 50; expected fewer than the"),
        ({"stages": (ONE,), "optim.warmup_epochs": 2.0}, "optim.warmup_epochs is 2.0; expected fewer than"),
        ({"augment.mixup": 0.2, "train.batch_size": 65}, "train.batch_size is 65; expected an even number,"),
        ({"stages": ({"epochs": 0.0},)}, "stages, stage 1: epochs=0.0 in a stage; expected more than"),
        ({"stages": (ONE,), "train.steps": 9}, "train.steps and config.stages are both"),
        ({"init_from": "cnn_64", "init.weights": "timm"}, "init_from is 'cnn_64' and config.init.weights is"),
        ({"selection.split": "test"}, "selection.split is 'test', which is only for the final evaluation"),
        ({"data.num_classes": 8}, "data.num_classes=8 needs labels with contempt"),
        ({**ADJUSTED, "data.balanced_sampling": 0.5}, "loss.logit_adjustment and config.data."),
        ({**ADJUSTED, "distill.teachers": ("cnn_64",)}, "loss.logit_adjustment and config.distill.teachers"),
        ({"distill.views": "plain", "distill.temperature": 2.0}, "distill.temperature is 2.0; expected 1"),
        ({"selection.patience": 1, "stages": (ONE, ONE)}, "selection.patience is 1 with 2 stages: early"),
        ({"stages": (ONE | {"train": "heads"},)}, "stages, stage 1: train='heads' in a stage"),
        ({"stages": (ONE, ONE | {"rate": 1})}, "stages, stage 2: StageConfig.__init__() got an unexpected"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match="^" + re.escape(f"config.{message}")):
        validate.check(config_of(**changes))


# -------------------- with the network and files --------------------

LAST_9 = {"epochs": 1.0, "train": "blocks", "last": 9, "batch_norm": "running"}
ELU_AT_24 = {"model.name": "cnn_elu", "model.kwargs": {}, "model.input_size": 48}
ELU_AT_24["train.sizes"] = ((0.5, 24),)
UNFIT = [
    ({"model.kwargs": {"depths": (1, 1)}}, "config.model: depths=(1, 1) and widths="),
    ({"model.kwargs": {"width": 2}}, "config.model: cnn_relu has no attribute ['width']; it has: axis_name,"),
    ({"model.input_size": 2}, "config.model: faces of 2x2 are too small for this model: at least 4x4"),
    ({"train.sizes": ((0.5, 3),)}, "config.train.sizes has 3: faces of 3x3 are too small for this model"),
    (ELU_AT_24, "config.train.sizes has 24, but cnn_elu has dense layers for config.model.input_size=48"),
    ({"init_from": "nowhere"}, "config.init_from: there are no weights nowhere: expected a"),
    ({"init_from": "cnn_250k"}, "config.init_from is 'cnn_250k': the given weights are of another network"),
    ({"init.weights": "nowhere"}, "config.init.weights is 'nowhere': expected none, torchvision, timm,"),
    ({"init.weights": "keras"}, "there are no ImageNet weights for cnn_relu, only for: efficientnet_b0, "),
    ({"distill.teachers": ("cnn_64", "nowhere")}, "config.distill.teachers: there are no weights nowhere: "),
    ({"data.drop_ids": "nowhere.csv"}, "there is no file nowhere.csv: config.data.drop_ids takes a text"),
    ({"stages": (HEAD,)}, "the BatchNorm of cnn_relu cannot be frozen: set batch_norm="),
    ({"stages": (LAST_9,)}, "a stage trains the last 9 blocks, but the model has "),
    ({"optim.momentum": 1.5}, "config.optim.momentum is 1.5; expected 0 to below 1"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), UNFIT, ids=itertools.count())
def test_a_dry_run_refuses_what_a_training_would(changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match="^" + re.escape(message)):
        validate.dry_run([config_of(), config_of(**changes)])


def test_a_dry_run_names_a_damaged_parent(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"cut")
    with pytest.raises(DamagedCheckpointError, match=f"config.init_from: {path} is not a complete"):
        validate.dry_run([config_of(init_from=str(path))])


def test_a_dry_run_takes_what_can_be(monkeypatch):
    """ImageNet weights are not downloaded, and a network that configs share is built once."""
    made, create = [], models.create
    monkeypatch.setattr(models, "create", lambda *args, **how: made.append(args) or create(*args, **how))
    rates = [config_of(**{"optim.learning_rate": rate, "train.steps": 9}) for rate in (0.1, 0.2, 0.4)]
    stages = (HEAD, {"epochs": 1.0, "train": "blocks", "last": 2})
    pretrained = {"model.name": "vgg16", "model.channels": 3, "model.kwargs": {}, "model.input_size": 32}
    validate.dry_run([*rates, config_of(**pretrained, **{"init.weights": "keras", "stages": stages})])
    assert [name for name, _ in made] == ["cnn_relu", "vgg16"]


def test_weights_are_dry_run_at_another_size():
    """The weights are for 48 px (bilinear), and the run uses 64 px (bicubic)."""
    config = importlib.import_module("configs.cnn_250k").get_config()
    config.init_from, config.distill.teachers = "cnn_250k", ()
    config.model.input_size, config.model.interpolation = 64, "bicubic"
    validate.dry_run([config])


def test_a_run_reads_once_what_its_configuration_names(tiny_run, tiny_data, tmp_path, monkeypatch):
    (tmp_path / "ids").write_text(read.load(tiny_data, "train").ids[0])
    reads = collections.Counter()

    def count(owner, name):
        function = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **how: reads.update([name]) or function(*args, **how))

    count(validate.read, "read_manifest")
    for name in ("load_split", "read_excluded"):
        count(validate.training_data, name)
    count(validate.initial_weights, "LoadedModel")
    for name in ("augmentation", "stage_configs"):
        count(validate.build, name)
    teachers = {"distill.teachers": (str(tiny_run),), "distill.views": "plain"}
    changes = teachers | {"data.drop_ids": str(tmp_path / "ids"), "train.steps": 1}
    train_and_evaluate(simple_config(tiny_data, **changes), tmp_path / "run")
    assert reads.pop("load_split") == 2  # training and selection
    assert reads.pop("read_manifest") == 1 + 2  # each split is loaded by its index in the manifest
    assert set(reads.values()) == {1} and len(reads) == 4


# -------------------- on the command line --------------------


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("optim.name", ("sgd", "adan"), "config.optim.name is 'adan'; there are: sgd, adam"),
        ("augment.erasing", ("0.5", "2"), "config.augment.erasing is 2.0; expected a probability in [0, 1]"),
        ("model.kwargs.depths", ("(1, 1, 2)",), "config.model: depths=(1, 1, 2) and widths=(16, 32, 64,"),
        ("init_from", ("nowhere",), "config.init_from: there are no weights nowhere"),
        ("distill.teachers", ("('nowhere',)",), "config.distill.teachers: there are no weights nowhere"),
    ],
)
def test_a_search_refuses_before_its_first_training(field, values, message, tmp_path, monkeypatch, capsys):
    sweep = script("sweep")
    words = (f"--out={tmp_path}", "--grid", field, *values)
    assert run_within(monkeypatch, sweep, lambda config: None, *words)[0] == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_list_is_dry_run(tmp_path, monkeypatch, capsys):
    words = ("--configs", "cnn", "cnn_48_gpu", "--", "--config.model.kwargs.widths=(4, 8)")
    train_list = script("train_list")
    code, commands = run_within(monkeypatch, train_list, lambda config: None, f"--out={tmp_path}", *words)
    assert code == 2 and commands.trained == []
    assert "error: config.model: depths=(1, 2, 3, 3) and widths=(4, 8)" in capsys.readouterr().err
