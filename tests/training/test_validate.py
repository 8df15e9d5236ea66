"""What a configuration may say, and what is refused before any training."""

import collections
import importlib
import itertools
import re

import pytest
from helpers import ROOT, run_within, script
from small_runs import simple_config

from configs.cnn_48_gpu import NETWORKS
from configs.cnn_relu_48_gpu import EPOCHS
from configs.default import get_config
from fer_jax import models
from fer_jax.data.dataset import read
from fer_jax.training import losses, optim, sharding, validate
from fer_jax.training.train import train_and_evaluate
from fer_jax.weights_file import DamagedCheckpointError

EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
VARIANTS = [(name, ()) for name in EXPERIMENTS if name != "default"]
VARIANTS += [("cnn_48_gpu", (name,)) for name in NETWORKS]
VARIANTS += [("cnn_relu_48_gpu", (target,)) for target in EPOCHS]
VARIANTS += [("ferplus", ("votes",)), ("default", ())]


def config_of(**changes):
    """The default with a small network, and with fields by their dotted names."""
    config = get_config()
    small = {"model.input_size": 16, "model.kwargs": {"widths": (4, 8), "hidden": 8}}
    config.update_from_flattened_dict(small | changes)
    return config


@pytest.mark.parametrize(("name", "arguments"), VARIANTS, ids=lambda value: "".join(value) or "-")
def test_every_experiment_passes(name, arguments):
    validate.check(importlib.import_module(f"configs.{name}").get_config(*arguments))


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("parallel", "foo", sharding.MODES),
        ("data.labels", "foo", ("given", "ferplus_majority")),
        ("model.name", "cnn_rel", sorted(models.MODELS)),
        ("model.interpolation", "nearest", ("bilinear", "bicubic")),
        ("model.dtype", "float16", ("float32", "bfloat16")),
        ("loss.class_weights", "foo", ("none", "balanced")),
        ("loss.normalization", "foo", losses.NORMALIZATIONS),
        ("optim.name", "adan", optim.OPTIMIZERS),
        ("optim.schedule", "cosin", optim.SCHEDULES),
        ("selection.split", "public", ("train", "validation", "test")),
        ("selection.metric", "f1", ("accuracy", "balanced_accuracy", "macro_f1")),
        ("checkpoint.dtype", "bfloat16", ("float32", "float16")),
    ],
)
def test_an_unknown_choice_is_refused(field, value, known):
    message = f"config.{field} is {value!r}; there are: {', '.join(known)}"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        validate.check(config_of(**{field: value}))


# Values outside of each range, and the fields that have it.
RANGES = {
    "more than 0": (
        (0, -1),
        "log_every data.image_size model.input_size model.std distill.temperature optim.layer_decay "
        "optim.accumulate train.batch_size train.epochs train.steps train.eval_epochs train.eval_steps "
        "checkpoint.keep",
    ),
    "0 or more": (
        (-1,),
        "seed data.num_workers loss.focal_gamma loss.logit_adjustment optim.learning_rate optim.weight_decay "
        "optim.clip_norm optim.sharpness_radius optim.warmup_epochs optim.warmup_steps optim.step_factor "
        "optim.plateau_patience selection.patience checkpoint.every_steps",
    ),
    "0 to 1": (
        (-0.1, 1.5),
        "data.balanced_sampling model.mean optim.plateau_min_scale train.mix_until",
    ),
    "0 to below 1": ((-0.1, 1.0, 1.5), "loss.label_smoothing optim.momentum train.ema_decay"),
    "more than 0 and at most 1": ((0.0, 1.5), "distill.weight optim.plateau_factor"),
    "1 or 3": ((2,), "model.channels"),
    "7 or 8": ((5, 6), "data.num_classes"),
    "a probability in [0, 1]": ((2.0, -0.5), "augment.erasing"),
    "0 (off) or more": ((-1.0,), "augment.mixup"),
    "one of reflect, constant": (("wrap",), "augment.fill"),
    "fewer than the 30.0 epochs of the run": ((30.0, 31.0), "optim.warmup_epochs"),
    "growing numbers above 0": (((2.0, 2.0), (3.0, 2.0), (-1.0, 2.0), (0, 20)), "optim.boundary_epochs"),
}


@pytest.mark.parametrize("expected", RANGES)
def test_a_value_out_of_its_range_is_refused(expected):
    values, fields = RANGES[expected]
    for field, value in itertools.product(fields.split(), values):
        default = validate.field(get_config(), field)
        value = float(value) if isinstance(default, float) else value
        message = f"config.{field} is {value!r}; expected {expected}"
        with pytest.raises(ValueError, match="^" + re.escape(message)):
            validate.check(config_of(**{field: value}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["train.epochs", "distill.temperature"])
def test_what_is_no_number_is_refused(field, value):
    with pytest.raises(ValueError, match=f"^config.{field} is {value}; expected finite numbers"):
        validate.check(config_of(**{field: value}))


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("dropout", 1.0, "0 to below 1"),
        ("block_dropout", (0.2, 1.5), "0 to below 1"),
        ("drop_path", -0.1, "0 to below 1"),
        ("widths", (4, 0), "whole numbers above 0"),
        ("widths", (4.5, 8), "whole numbers above 0"),
        ("widths", ("a", 8), "finite numbers"),
        ("depths", (0, 1), "whole numbers above 0"),
        ("hidden", -8, "whole numbers above 0"),
        ("blocks", (-1, 1), "whole numbers, 0 or more"),
        ("squeeze", -8, "whole numbers, 0 or more"),
        ("width", 0.0, "more than 0"),
        ("depth", -1.0, "more than 0"),
    ],
)
def test_an_attribute_out_of_its_range_is_refused(attribute, value, expected):
    message = f"config.model.kwargs.{attribute} is {value!r}; expected {expected}"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        validate.check(config_of(**{"model.kwargs": {attribute: value}}))


@pytest.mark.parametrize(
    "sizes",
    [(0.5,), ((0.5, 32, 3),), ((0.0, 32),), ((-0.2, 32),), ((1.2, 32),), ((0.5, 0),), ((0.5, 24), (0.5, 32)),
     ((0.5, 24), (0.2, 32))],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(sizes):
    message = re.escape(f"config.train.sizes is {sizes}; expected ((share of the steps, size), ...)")
    with pytest.raises(ValueError, match=f"^{message} with growing shares, above 0 and at most 1, and sizes"):
        validate.check(config_of(**{"train.sizes": sizes}))


def test_bounds_belong_to_their_ranges():
    kept = {
        "train.mix_until": 0.0,
        "optim.momentum": 0.0,
        "optim.warmup_epochs": 29.5,
        "train.sizes": ((0.5, 24), (1.0, 32)),
        "loss.label_smoothing": 0.0,
        "distill.weight": 1.0,
        "model.kwargs": {"depths": None, "dropout": 0.0, "squeeze": 0},
        # In two units: what an epoch is the data say.
        "optim.warmup_steps": 10_000,
    }
    validate.check(config_of(**kept))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train.steps": 50, "optim.warmup_steps": 50},
            "config.optim.warmup_steps is 50; expected fewer than the 50 steps of the run",
        ),
        (
            {"stages": ({"epochs": 9.0}, {"epochs": 2.0}), "optim.warmup_epochs": 2.0},
            "config.optim.warmup_epochs is 2.0; expected fewer than the 2.0 epochs of the shortest stage",
        ),
        (
            {"augment.mixup": 0.2, "train.batch_size": 65},
            "config.train.batch_size is 65; expected an even number, for mixup and cutmix",
        ),
        ({"stages": ({"epochs": 0.0},)}, "config.stages, stage 1: epochs=0.0 in a stage; expected more than"),
        ({"stages": ({"epochs": 2.0},), "train.steps": 9}, "config.train.steps and config.stages are both"),
        (
            {"init_from": "cnn", "init.weights": "timm"},
            "config.init_from is 'cnn' and config.init.weights is 'timm': choose one to start from",
        ),
        ({"selection.split": "test"}, "config.selection.split is 'test', which is for the final score only"),
        ({"data.num_classes": 8}, "config.data.num_classes=8 needs labels that know contempt"),
        (
            {"loss.logit_adjustment": 1.0, "data.balanced_sampling": 0.5},
            "config.loss.logit_adjustment and config.data.balanced_sampling are set: each corrects",
        ),
        (
            {"loss.logit_adjustment": 1.0, "distill.teachers": ("cnn",)},
            "config.loss.logit_adjustment and config.distill.teachers are set",
        ),
        (
            {"distill.views": "plain", "distill.temperature": 2.0},
            "config.distill.temperature is 2.0; expected 1 with config.distill.views='plain'",
        ),
        (
            {"selection.patience": 1, "stages": ({"epochs": 1.0}, {"epochs": 2.0})},
            "config.selection.patience is 1 with 2 stages: an early stop would leave out",
        ),
        (
            {"stages": ({"epochs": 1.0, "train": "heads"},)},
            "config.stages, stage 1: train='heads' in a stage",
        ),
        (
            {"stages": ({"epochs": 1.0}, {"epochs": 1.0, "rate": 1})},
            "config.stages, stage 2: StageConfig.__init__() got an unexpected keyword argument 'rate' "
            "(fields: epochs, train,",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        validate.check(config_of(**changes))


# -------------------- with the network and files --------------------

UNFIT = [
    (
        {"model.kwargs": {"widths": (4, 8), "depths": (1, 1, 2)}},
        "config.model: depths=(1, 1, 2) and widths=(4, 8): expected one number for each block in both",
    ),
    (
        {"model.kwargs": {"width": 2}},
        "config.model: cnn_relu has no attribute ['width']; it has: axis_name, ",
    ),
    ({"model.input_size": 2}, "config.model: faces of 2x2 are too small for this model: at least 4x4"),
    ({"train.sizes": ((0.5, 3),)}, "config.train.sizes has 3: faces of 3x3 are too small for this model"),
    (
        {"model.name": "cnn_elu", "model.kwargs": {}, "model.input_size": 48, "train.sizes": ((0.5, 24),)},
        "config.train.sizes has 24, but cnn_elu has dense layers for config.model.input_size=48",
    ),
    (
        {"init_from": "nowhere"},
        "config.init_from: there are no weights nowhere: expected a .safetensors file",
    ),
    ({"init_from": "cnn_250k"}, "config.init_from is 'cnn_250k': the given weights are of another network"),
    (
        {"init.weights": "nowhere"},
        "config.init.weights is 'nowhere': expected none, torchvision, timm, timm_tf, keras",
    ),
    ({"init.weights": "keras"}, "there are no ImageNet weights for cnn_relu, but for: efficientnet_b0, "),
    ({"distill.teachers": ("cnn", "nowhere")}, "config.distill.teachers: there are no weights nowhere: "),
    ({"data.drop_ids": "nowhere.csv"}, "there is no file nowhere.csv: config.data.drop_ids takes a text"),
    (
        {"stages": ({"epochs": 1.0, "train": "head"},)},
        "the BatchNorm of cnn_relu always follows the batches: set batch_norm='running' in config.stages",
    ),
    (
        {"stages": ({"epochs": 1.0, "train": "blocks", "last": 9, "batch_norm": "running"},)},
        "a stage trains the last 9 blocks, and the model has ",
    ),
    ({"optim.momentum": 1.5}, "config.optim.momentum is 1.5; expected 0 to below 1"),
]


@pytest.mark.parametrize(
    ("changes", "message"), UNFIT, ids=lambda value: "" if isinstance(value, str) else None
)
def test_a_dry_run_refuses_what_a_training_would(changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match="^" + re.escape(message)):
        validate.dry_run([config_of(), config_of(**changes)])


def test_a_dry_run_names_a_damaged_parent(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"cut")
    with pytest.raises(DamagedCheckpointError, match=f"config.init_from: {path} is not a complete"):
        validate.dry_run([config_of(init_from=str(path))])


def test_a_dry_run_takes_what_can_be(monkeypatch):
    """ImageNet weights are not fetched, and a network that configurations share is made once."""
    made, create = [], models.create
    monkeypatch.setattr(
        models, "create", lambda *args, **kwargs: made.append(args) or create(*args, **kwargs)
    )
    rates = [config_of(**{"optim.learning_rate": rate, "train.steps": 9}) for rate in (0.1, 0.2, 0.4)]
    stages = ({"epochs": 1.0, "train": "head"}, {"epochs": 1.0, "train": "blocks", "last": 2})
    pretrained = {"model.name": "vgg16", "model.channels": 3, "model.kwargs": {}, "model.input_size": 32}
    validate.dry_run([*rates, config_of(**pretrained, **{"init.weights": "keras", "stages": stages})])
    assert [name for name, _ in made] == ["cnn_relu", "vgg16"]


def test_the_experiment_at_another_size_is_dry_run():
    """Its weights are of 48 px and bilinear, and it continues at 64 and bicubic."""
    validate.dry_run([importlib.import_module("configs.cnn_64").get_config()])


def test_a_run_reads_once_what_its_configuration_names(tiny_run, tiny_data, tmp_path, monkeypatch):
    (tmp_path / "ids").write_text(read.load(tiny_data, "train").ids[0])
    reads = collections.Counter()

    def count(owner, name):
        function = getattr(owner, name)

        def counted(*arguments, **kwargs):
            reads[name] += 1
            return function(*arguments, **kwargs)

        monkeypatch.setattr(owner, name, counted)

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
    assert reads.pop("read_manifest") == 1 + 2  # each split is loaded by its place in the manifest
    assert set(reads.values()) == {1} and len(reads) == 4


# -------------------- on the command line --------------------


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("optim.name", ("sgd", "adan"), "config.optim.name is 'adan'; there are: sgd, adam"),
        ("augment.erasing", ("0.5", "2"), "config.augment.erasing is 2.0; expected a probability in [0, 1]"),
        (
            "model.kwargs.depths",
            ("(1, 1, 2)",),
            "config.model: depths=(1, 1, 2) and widths=(16, 32, 64, 128)",
        ),
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
