"""Every field of a configuration, once, with its default. Experiments override some of them.

Override from the command line with `--config.field=value`, e.g. `--config.optim.learning_rate=0.05`.
"""

import dataclasses

from ml_collections import ConfigDict, config_dict

from fer_jax.data.augment import PRESETS
from fer_jax.data.fer2013_reference import MEAN, STD


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.seed = 0  # of the parameters, the order of the data, augmentation and dropout
    c.parallel = "auto"  # auto or jit (over the mesh of all devices), or pmap (replicas)
    # Weights given by init_from bring mean and std of their input and the conventions of their layers
    # (padding, epsilon); the input's size and interpolation are set here.
    c.init_from = ""  # start from weights: work directory, checkpoint, .safetensors or a bundled name
    c.log_every = 50  # steps between two reports of training numbers

    c.data = ConfigDict()
    c.data.dir = "data/fer2013"  # made by fer-jax prepare
    c.data.image_size = config_dict.placeholder(int)  # common side for images of mixed sizes
    c.data.labels = "given"  # the dataset's own, or a rule over FER+'s votes, see fer_jax.data.ferplus
    c.data.num_classes = 7  # the seven emotions, or 8: these and contempt (FER+ labels only)
    c.data.drop_blank = False  # leave out training images with a single value
    c.data.merge_twins = False  # one training image for identical ones, with their mean label
    c.data.drop_ids = ""  # file of training ids to leave out: one a line, or a CSV with a column id
    # How far the classes' shares are evened out in what is drawn; an epoch stays as many faces.
    c.data.balanced_sampling = 0.0  # 0 every face once an epoch, 1 all classes equally often
    c.data.num_workers = 0  # reading processes; 0 is best for faces held in memory

    c.augment = augmentation("none")  # see fer_jax.data.augment.Ranges

    c.model = ConfigDict()
    c.model.name = "cnn_relu"  # see fer_jax/models/__init__.py
    c.model.kwargs = ConfigDict()  # the model's own attributes, such as widths or dropout
    c.model.input_size = 48  # faces are drawn at this size, whatever they are at rest
    c.model.channels = 1  # 1 gray, 3 RGB
    # ImageNet weights bring their own mean, std and interpolation, those of init_from their mean and std.
    c.model.mean = MEAN  # 0.5077: pixels in [0, 1] are normalized by mean and std; FER2013's
    c.model.std = STD  # 0.2550, likewise
    c.model.interpolation = "bilinear"  # or bicubic
    c.model.dtype = "float32"  # or bfloat16, of the training steps; all else stays float32

    c.init = ConfigDict()
    # torchvision, timm, timm_tf (TensorFlow's, ported by timm), keras, or a file of fer-jax port-weights
    c.init.weights = "none"  # ImageNet weights for the model's trunk

    c.loss = ConfigDict()
    c.loss.label_smoothing = 0.0  # mass spread evenly over the classes
    c.loss.class_weights = "none"  # or balanced: N / (K * n_i)
    c.loss.normalization = "examples"  # divide by examples (Keras) or weights (torch)
    c.loss.focal_gamma = 0.0  # 0 for plain cross entropy
    c.loss.logit_adjustment = 0.0  # tau, on the logarithm of the classes' shares; 0 for none

    c.distill = ConfigDict()  # see fer_jax.training.distillation
    c.distill.teachers = ()  # to learn from: work directories, .safetensors, or bundled networks' names
    c.distill.views = "augmented"  # they see what the student sees; plain: each face once, before training
    c.distill.weight = 0.9  # of their part in the loss; the labels have the rest
    c.distill.temperature = 1.0  # that both sides' logits are divided by

    c.optim = ConfigDict()
    c.optim.name = "sgd"  # sgd (Nesterov), adam, adamw, muon
    c.optim.learning_rate = 0.1  # peak
    c.optim.momentum = 0.9  # of sgd
    c.optim.weight_decay = 0.0  # kernels only
    c.optim.layer_decay = 1.0  # factor on the rate for each block further from the head
    c.optim.clip_norm = 0.0  # global gradient norm; 0 for no limit
    c.optim.sharpness_radius = 0.0  # of sharpness-aware minimization, such as 0.05; 0 for none
    c.optim.accumulate = 1  # steps whose gradients are averaged into one update
    c.optim.schedule = "cosine"  # cosine, constant, step, plateau
    c.optim.warmup_epochs = 0.0  # over which the rate rises from 0
    c.optim.warmup_steps = config_dict.placeholder(int)  # instead of epochs
    c.optim.boundary_epochs = ()  # after each of them the rate falls, for schedule=step
    c.optim.boundary_steps = config_dict.placeholder(tuple)  # instead of epochs
    c.optim.step_factor = 0.1  # what it falls to, as a factor
    c.optim.plateau_patience = 5  # evaluations, for schedule=plateau
    c.optim.plateau_factor = 0.5  # on the rate, after so many evaluations without improvement
    c.optim.plateau_min_scale = 1e-3  # smallest product of these factors

    c.train = ConfigDict()
    c.train.batch_size = 128  # global
    c.train.epochs = 30.0  # a fraction is fine
    c.train.steps = config_dict.placeholder(int)  # instead of epochs
    c.train.eval_epochs = 1.0  # between two evaluations, each with a checkpoint
    c.train.eval_steps = config_dict.placeholder(int)  # instead of epochs
    # Evaluations are at model.input_size: while the faces are smaller they show less than there is.
    c.train.sizes = ()  # progressive resizing: ((until this share of the steps, size), ...)
    c.train.mix_until = 1.0  # share of the steps with mixup and cutmix
    c.train.ema_decay = 0.0  # of averaged parameters and statistics; 0 keeps none

    # Instead of train.epochs and optim.learning_rate: the fields of training.stages.StageConfig, such as
    # ({"epochs": 3.0, "train": "head", "learning_rate": 1e-3}, {"epochs": 20.0, ...}).
    c.stages = ()  # of fine-tuning

    c.selection = ConfigDict()  # how the best checkpoint is chosen
    c.selection.split = "validation"  # never test
    c.selection.metric = "accuracy"  # or macro_f1, balanced_accuracy
    # With more than one stage it must be 0.
    c.selection.patience = 0  # evaluations without improvement before an early stop; 0 never

    c.checkpoint = ConfigDict()
    c.checkpoint.keep = 2  # newest, beside the best
    c.checkpoint.every_steps = 0  # also between evaluations; 0 for evaluations only
    c.checkpoint.dtype = "float32"  # of the kernels in best.safetensors
    c.lock()  # a field that is not above is a typo; a model's attributes are its own
    c.model.kwargs.unlock()
    return c


def augmentation(preset: str) -> ConfigDict:
    """Returns the ranges of a preset of `fer_jax.data.augment` as fields."""
    ranges = dataclasses.asdict(PRESETS[preset])
    # Floats throughout, so that an override with a fraction keeps the field's type.
    c = ConfigDict({k: float(v) if isinstance(v, int) else v for k, v in ranges.items()})
    return c.lock()
