"""Finds training labels that are likely wrong, by confident learning on out-of-fold predictions.

    fer-jax label-errors --data data/fer2013 --out runs/label_errors
    fer-jax label-errors --out runs/label_errors -- --config.train.epochs=12

Splits the training images into folds, keeping duplicates together, trains --config on all but one fold in
turn, and predicts the remaining fold with the final weights. Writes to OUT

  predictions.csv   out-of-fold probabilities of each training image
  suspects.csv      id, label, suggested, quality (the probability of the label), lowest quality first
  suspects.png      the first of these
  fold_0 ...        the runs; fold_0.txt ... list the IDs that each run has not seen

Run the same command to resume. To train without the suspects, review suspects.csv and pass it to
--config.data.drop_ids. An inaccurate network suspects many correct labels: --at_most 0.05 keeps only the
lowest qualities, up to 5 % of all images. Flags after -- are passed to every run.
"""

import argparse
import pathlib

from fer_jax.commands import common
from fer_jax.training import launch

OWN = ("config", "workdir", "config.data.dir", "config.data.image_size", "config.data.drop_ids")
# Label errors are searched for in the dataset's own labels.
OWN += ("config.data.labels", "config.data.num_classes")


def main() -> int:
    """Returns the exit code of the first run that fails, or 2 if the data cannot be used."""
    parser = common.make_training_parser(__doc__)
    add = parser.add_argument
    add("--out", type=pathlib.Path, required=True, help="output folder for runs and results")
    add("--folds", type=common.number(int, 2), default=5, metavar="K", help="number of folds, 2 or more")
    seed = common.number(int, 0, 2**32 - 1)
    add("--seed", type=seed, default=0, metavar="N", help="seed for the folds")
    text = "maximum fraction of training images in suspects.csv"
    add("--at_most", type=common.number(float, 1e-9, 1), default=1.0, metavar="SHARE", help=text)
    text = "maximum number of suspects in suspects.png"
    add("--show", type=common.number(int, 0), default=64, metavar="N", help=text)
    options = parser.parse_args()
    common.refuse(parser, options.arguments, OWN)
    return common.run(find, options)


def find(options: argparse.Namespace) -> int:
    """Trains, predicts, ranks, and writes; returns the exit code."""
    import numpy as np

    from fer_jax import runtime
    from fer_jax.data import splits
    from fer_jax.data.dataset import read
    from fer_jax.data.emotions import EMOTIONS
    from fer_jax.data.ferplus import GIVEN
    from fer_jax.evaluation import label_errors, predictions_file
    from fer_jax.io_utils import write_atomically
    from fer_jax.pretrained.loaded_model import LoadedModel

    runtime.tune_cpu()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    faces = read.load(options.data, "train", image_size=options.image_size)
    shares = {f"fold_{number}": 1 / options.folds for number in range(options.folds)}
    groups = splits.duplicate_groups(faces.images)
    folds = splits.stratified_group_split(faces.labels, groups, shares, options.seed)
    probs = np.empty((len(faces), len(EMOTIONS)))
    commands = launch.Commands()
    for name, members in folds.items():
        held_out = out / f"{name}.txt"
        write_atomically(held_out, "".join(f"{faces.ids[i]}\n" for i in members).encode())
        flags = [*common.data_flags(options), f"--config.data.drop_ids={held_out}", *options.arguments]
        if code := commands.train(launch.Training(options.config, out / name, tuple(flags))):
            return code
        trained = LoadedModel(out / name / "last.safetensors")
        if trained.metadata["labels"] != GIVEN or len(trained.metadata["emotions"]) != len(EMOTIONS):
            raise ValueError(
                f"{options.config} trains on FER+ labels; errors are searched for in the dataset's own labels"
            )
        probs[members] = trained.predict(faces.images[members], progress=False)
    table = predictions_file.Predictions(list(faces.ids), probs, faces.labels, list(EMOTIONS), groups)
    predictions_file.write(out / "predictions.csv", table)
    found = label_errors.find_suspects(probs, faces.labels, faces.ids)
    suspects = found[: round(options.at_most * len(faces))]
    label_errors.write_suspects(out / "suspects.csv", suspects, EMOTIONS)
    shown = suspects[: options.show]
    label_errors.plot_suspects(faces.images, shown, EMOTIONS, out / "suspects.png")
    accuracy = (probs.argmax(axis=1) == faces.labels).mean()
    print(f"\nout-of-fold accuracy on {len(faces):,} training images: {100 * accuracy:.1f} %")
    for label, name in enumerate(EMOTIONS):
        count = sum(suspect.label == label for suspect in suspects)
        print(f"  {name:10} {count:6,} suspects of {(faces.labels == label).sum():6,}")
    if len(suspects) < len(found):
        print(f"kept the {len(suspects):,} of {len(found):,} suspects with the lowest quality")
    print(f"{len(suspects):,} suspects: {out / 'suspects.csv'}, the first {len(shown)} in suspects.png")
    return 0
