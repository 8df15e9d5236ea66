"""Lists all config fields with their defaults. Experiments override some of them.

Override fields on the command line with `--config.field=value`, e.g. `--config.optim.learning_rate=0.05`.
"""

import dataclasses

from ml_collections import ConfigDict, config_dict

from fer_jax.data.augment import PRESETS
from fer_jax.data.fer2013_reference import MEAN, STD


def get_config() -> ConfigDict:
    """Returns the default config; locked, so that unknown fields are errors."""
    c = ConfigDict()
    c.seed = 0  # seed of parameters, data order, augmentation, and dropout
    c.parallel = "auto"  # auto or jit (a mesh of all devices), or pmap (replicas)
    # Weights in init_from keep their normalization and layer conventions (padding, epsilon); input size and
    # interpolation are set here.
    c.init_from = ""  # initial weights: run directory, checkpoint, .safetensors, or bundled network
    c.log_every = 50  # steps between reports of training metrics

    c.data = ConfigDict()
    c.data.dir = "data/fer2013"  # from fer-jax prepare
    c.data.image_size = config_dict.placeholder(int)  # resize images of different sizes to this side
    c.data.labels = "given"  # the dataset's own labels, or a rule for FER+ votes, see fer_jax.data.ferplus
    c.data.num_classes = 7  # 7 emotions, or 8 with contempt (FER+ labels only)
    c.data.drop_blank = False  # exclude training images with a single color
    c.data.merge_twins = False  # merge identical training images, averaging their labels
    c.data.drop_ids = ""  # file of training IDs to exclude: one per line, or a CSV with a column id
    # Strength of class balancing in sampling; epochs keep their number of faces.
    c.data.balanced_sampling = 0.0  # 0: every face once per epoch, 1: all classes equally often
    c.data.num_workers = 0  # reader processes; 0 is best for faces in memory

    c.augment = augmentation("none")  # see fer_jax.data.augment.Ranges

    c.model = ConfigDict()
    c.model.name = "cnn_relu"  # see fer_jax/models/__init__.py
    c.model.kwargs = ConfigDict()  # the model's own attributes, such as widths or dropout
    c.model.input_size = 48  # faces are resampled to this size, whatever their native size
    c.model.channels = 1  # 1 gray, 3 RGB
    # ImageNet weights set mean, std, and interpolation; init_from sets mean and std.
    c.model.mean = MEAN  # 0.5077, of FER2013: pixels in [0, 1] are normalized by mean and std
    c.model.std = STD  # 0.2550, likewise
    c.model.interpolation = "bilinear"  # or bicubic
    c.model.dtype = "float32"  # or bfloat16, for training steps; everything else is float32

    c.init = ConfigDict()
    # torchvision, timm, timm_tf (TensorFlow's, ported by timm), keras, or a file from fer-jax port-weights
    c.init.weights = "none"  # ImageNet weights, except for the classifier

    c.loss = ConfigDict()
    c.loss.label_smoothing = 0.0  # probability mass spread evenly over classes
    c.loss.class_weights = "none"  # or balanced: N / (K * n_i)
    c.loss.normalization = "examples"  # divide by examples (Keras) or weights (torch)
    c.loss.focal_gamma = 0.0  # 0 for plain cross entropy
    c.loss.logit_adjustment = 0.0  # factor tau on the log class priors; 0 disables it

    c.distill = ConfigDict()  # see fer_jax.training.distillation
    c.distill.teachers = ()  # run directories, .safetensors, or bundled networks
    c.distill.views = "augmented"  # augmented: the student's views; plain: each face once, before training
    c.distill.weight = 0.9  # weight of the teacher loss; the label loss has the rest
    c.distill.temperature = 1.0  # divides the logits of student and teachers

    c.optim = ConfigDict()
    c.optim.name = "sgd"  # sgd (Nesterov), adam, adamw, muon
    c.optim.learning_rate = 0.1  # peak
    c.optim.momentum = 0.9  # for sgd
    c.optim.weight_decay = 0.0  # kernels only
    c.optim.layer_decay = 1.0  # factor on the learning rate per block from the head
    c.optim.clip_norm = 0.0  # global gradient norm; 0 for no limit
    c.optim.sharpness_radius = 0.0  # for sharpness-aware minimization, such as 0.05; 0 disables it
    c.optim.accumulate = 1  # steps per update, with averaged gradients
    c.optim.schedule = "cosine"  # cosine, constant, step, plateau
    c.optim.warmup_epochs = 0.0  # linear warm-up of the learning rate from 0
    c.optim.warmup_steps = config_dict.placeholder(int)  # instead of epochs
    c.optim.boundary_epochs = ()  # epochs after which the learning rate is reduced, for schedule=step
    c.optim.boundary_steps = config_dict.placeholder(tuple)  # instead of epochs
    c.optim.step_factor = 0.1  # factor of each reduction
    c.optim.plateau_patience = 5  # evaluations, for schedule=plateau
    c.optim.plateau_factor = 0.5  # factor on the learning rate after each plateau
    c.optim.plateau_min_scale = 1e-3  # minimum product of these factors

    c.train = ConfigDict()
    c.train.batch_size = 128  # global batch size
    c.train.epochs = 30.0  # may be fractional
    c.train.steps = config_dict.placeholder(int)  # instead of epochs
    c.train.eval_epochs = 1.0  # epochs between evaluations, each with a checkpoint
    c.train.eval_steps = config_dict.placeholder(int)  # instead of epochs
    # Evaluations use model.input_size, so their metrics are lower while training uses smaller sizes.
    c.train.sizes = ()  # progressive resizing: ((up to this share of the steps, size), ...)
    c.train.mix_until = 1.0  # share of steps with mixup and cutmix
    c.train.ema_decay = 0.0  # of the EMA of parameters and statistics; 0 disables it

    # Instead of train.epochs and optim.learning_rate: fields of training.stages.StageConfig, such as
    # ({"epochs": 3.0, "train": "head", "learning_rate": 1e-3}, {"epochs": 20.0, ...}).
    c.stages = ()  # stages of fine-tuning

    c.selection = ConfigDict()  # selection of the best checkpoint
    c.selection.split = "validation"  # never test
    c.selection.metric = "accuracy"  # or macro_f1, balanced_accuracy
    # Must be 0 with more than one stage.
    c.selection.patience = 0  # evaluations without improvement until an early stop; 0 disables it

    c.checkpoint = ConfigDict()
    c.checkpoint.keep = 2  # newest checkpoints, besides the best
    c.checkpoint.every_steps = 0  # steps between further checkpoints; 0 saves only at evaluations
    c.checkpoint.dtype = "float32"  # of kernels in best.safetensors
    c.lock()  # other fields are typos, except for attributes of the model
    c.model.kwargs.unlock()
    return c


def augmentation(preset: str) -> ConfigDict:
    """Returns the ranges of a preset in `fer_jax.data.augment` as config fields."""
    ranges = dataclasses.asdict(PRESETS[preset])
    # Floats throughout, so that overrides with fractions keep the type.
    c = ConfigDict({k: float(v) if isinstance(v, int) else v for k, v in ranges.items()})
    return c.lock()


def check_choice(file: str, value: str, *choices: str) -> None:
    """Checks the argument of a config, which follows the colon in --config.

    Raises:
      ValueError: `value` is not one of the choices.
    """
    if value not in choices:
        raise ValueError(f"configs/{file}:{value}: expected one of {', '.join(choices)}")
