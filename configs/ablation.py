"""A small CNN at 32 px for a few epochs, as the baseline of ablations.

Run it with `python -m fer_jax.main --config configs/ablation.py`. It is evaluated only at the end, so that no
checkpoint is selected. This command compares methods against label noise and class imbalance with it:

    fer-jax sweep --baseline --config ablation --out runs/ablation --seeds 0 1 2 \\
        --change loss.label_smoothing 0.1 --change augment.mixup 0.2 --change loss.focal_gamma 2.0 \\
        --change loss.class_weights balanced --change loss.logit_adjustment 1.0 \\
        --change data.balanced_sampling 1.0 --change train.ema_decay 0.99 \\
        --change data.drop_ids runs/label_errors/suspects.csv

With six epochs it reached 54.2 % on PublicTest (results/ablation: three seeds, commit 11edfe6, 2.5 minutes
each on two CPU cores). Eight epochs on all of Training have not been run to the end.
"""

from configs.default import augmentation
from configs.default import get_config as default


def get_config():
    c = default()
    c.data.drop_blank = True
    c.data.merge_twins = True
    c.augment = augmentation("light")
    c.model.kwargs = dict(widths=(16, 32, 64, 128), depths=(1, 1, 2, 2), hidden=128, dropout=0.2)
    c.model.input_size = 32
    c.optim.learning_rate = 0.1
    c.optim.weight_decay = 5e-4
    c.optim.warmup_epochs = 1.0
    c.train.epochs = 8.0
    c.train.eval_epochs = 1e6  # only at the end of the run
    c.checkpoint.every_steps = 500
    return c
