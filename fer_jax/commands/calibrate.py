"""Fits the temperature that calibrates a network's confidence, and stores it with the weights.

    fer-jax calibrate --workdir runs/cnn --data data/fer2013
    fer-jax calibrate --checkpoint my.safetensors --data data/mine --split validation

Training does this at its end. Rewrites the weights file with the temperature in its metadata (Guo et al.
2017). Predicted classes do not change, and reports show metrics with and without the temperature. The
split must not be the training split; the test split is refused.
"""

import argparse
from pathlib import Path

from fer_jax.commands import common
from fer_jax.pretrained.registry import name_of


def main(argv: list[str] | None = None) -> int:
    parser = common.make_parser(__doc__)
    common.add_batch_size(parser, 256)
    return common.run(calibrate, parser.parse_args(argv))


def calibrate(args: argparse.Namespace) -> int:
    """Fits the temperature and rewrites the weights; returns the exit code.

    Raises:
      ValueError: the weights are bundled or not in a file, or the split is the training or the test split.
    """
    from fer_jax.evaluation import labelled_split, leakage_policy
    from fer_jax.evaluation.metrics import calibration
    from fer_jax.pretrained import weights_file

    trained = common.open_weights(args)
    path = Path(trained.source)
    if name_of(path):
        raise ValueError(f"{path} is bundled and already calibrated: give your own weights")
    if not path.is_file():
        raise ValueError(f"{path} is a folder: give the .safetensors file, which stores the temperature")
    labelled = labelled_split.load_labelled(trained, args.data, args.split)
    if args.split == "test":
        raise ValueError("--split test is only for the final evaluation: fit on validation")
    if leakage_policy.assess(labelled.metadata, None)["trained_on_this_split"]:
        raise ValueError(
            f"{path} was trained on {args.split} of {args.data}, and overconfident there: fit on validation"
        )
    probs = trained.predict(labelled.faces.images, batch_size=args.batch_size)
    found = calibration.calibrate(probs, labelled.faces.labels)
    split_hash = leakage_policy.split_hash(labelled.metadata["data"], args.split)
    kept = found | {"split": args.split, "split_hash": split_hash}
    dtype = ((trained.metadata.get("config") or {}).get("checkpoint") or {}).get("dtype", "float32")
    weights_file.export_weights(path, trained.variables, trained.metadata | {"calibration": kept}, dtype)
    print(
        f"temperature {found['temperature']:.3f}: mean loss on {args.split} {found['loss_before']:.4f} "
        f"before, {found['loss_after']:.4f} after; stored in {path}"
    )
    return 0
