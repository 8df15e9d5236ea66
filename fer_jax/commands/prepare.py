"""Prepares a dataset for training from files on disk.

    fer-jax prepare --source fer2013.csv --out data/fer2013
    fer-jax prepare --source folder/of/images --out data/mine
    fer-jax prepare --source synthetic --out data/synthetic

SOURCE is one of
  fer2013.csv             the challenge's file; or icml_face_data.csv, or a folder with one of them
  SPLIT/CLASS/... images  splits are train, validation (or val, valid), and test; Kaggle's FER2013
                          folders are recognized by their file names (Training_, PublicTest_,
                          PrivateTest_), which determine the split unless there is a folder for
                          validation (see --splits)
  CLASS/... images        split at random within each class, keeping identical images together
  list of images          a CSV with columns of paths and labels, or the list of RAF-DB, AffectNet,
                          or ExpW, or its folder; images are in or below the list's folder, or in
                          a sibling folder
  file.parquet            images and labels, as on the Hugging Face Hub; or a folder of such files
  kaggle:OWNER/NAME       a Kaggle dataset (needs the extra kaggle)
  hf:OWNER/NAME           a Hugging Face dataset (needs the extra huggingface)
  synthetic               generated faces, to try fer_jax without data

Classes are matched by name: angry/anger, disgust/disgusted, fear/fearful, happy/happiness, sad/sadness,
surprise/surprised, neutral. Training is train, PublicTest is validation, PrivateTest is test. Other classes,
such as contempt, must be mapped or dropped with --map. Folders 0 to 6 are in FER2013's order unless --map
says otherwise; numbers in the lists of RAF-DB, AffectNet, and ExpW are in the order of these datasets; other
numbers need --map:

    fer-jax prepare --source folder --map contempt=drop --map unknown=drop --out data/mine
    fer-jax prepare --source folder --map contempt=disgust --out data/mine

FER+ (Microsoft's ten votes per image) is joined to FER2013 by row, and to folders by pixels:

    fer-jax prepare --source fer2013.csv --ferplus fer2013new.csv --out data/ferplus
    fer-jax prepare --source folder/of/images --ferplus fer2013new.csv \\
        --ferplus_pixels fer2013.csv --out data/ferplus
"""

import argparse
import shlex
from pathlib import Path

from configs import cnn
from fer_jax.commands import common
from fer_jax.data.dataset.build import build
from fer_jax.data.decoding import PictureError
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import classes


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    add = parser.add_argument
    add("--source", required=True, help="file, folder, dataset to download, or the word synthetic")
    add("--out", required=True, metavar="DATA", help="folder for the dataset")
    text = "emotion of a class, or CLASS=drop to leave it out; repeatable"
    add("--map", action="append", default=[], metavar="CLASS=EMOTION", help=text)
    text = "use folder names or Kaggle file names to assign splits (default: file names, unless a folder is "
    text += "a validation split)"
    add("--splits", choices=("folders", "names"), help=text)
    text = "FER+'s fer2013new.csv, to add its votes"
    add("--ferplus", dest="ferplus_csv", metavar="VOTES", help=text)
    text = "fer2013.csv, to match images to FER+ votes by pixels"
    add("--ferplus_pixels", metavar="CSV", help=text)
    add("--skip_bad", action="store_true", help="skip bad rows and images, and list them")
    text = "fraction of images for {} if the source has no {}"
    for name, lacking in (("validation", "validation split"), ("test", "splits")):
        flag, help_text = f"--{name}_fraction", text.format(name, lacking)
        add(flag, type=float, default=0.1, metavar="F", help=help_text)
    add("--seed", type=int, default=0, help="seed for random splits")
    add("--overwrite", action="store_true", help="replace another dataset at DATA")
    return common.run(prepare, parser.parse_args(argv))


def prepare(args: argparse.Namespace) -> int:
    """Builds the dataset and prints a summary; returns the exit code."""
    flags = dict(vars(args))
    source, out, words = flags.pop("source"), flags.pop("out"), flags.pop("map")
    try:
        manifest = build(source, out, class_map=classes.parse(words), **flags)
    except PictureError as error:
        raise ValueError(f"{error}\nfix or remove it, or skip bad rows and images with --skip_bad") from error
    print(summary(manifest, out, words))
    return 0


def summary(manifest: dict, out: str, class_map: list[str]) -> str:
    """Describes the dataset and the commands to run next."""
    splits = manifest["splits"]
    lines = [f"{manifest['name']} ({manifest['source_kind']}) at {out}", ""]
    lines.append("".join([f"{'':10}", *(f"{name:>12}" for name in splits)]))
    for emotion in EMOTIONS:
        counts = (split["class_counts"][emotion] for split in splits.values())
        lines.append("".join([f"{emotion:10}", *(f"{count:12,}" for count in counts)]))
    lines.append("".join([f"{'all':10}", *(f"{split['count']:12,}" for split in splits.values())]))
    shape = manifest["image_shape"]
    color = "gray" if manifest["channels"] == 1 else "RGB"
    size = f"{shape[0]} x {shape[1]}" if shape else "various sizes"
    mean, std = manifest["pixel_mean"], manifest["pixel_std"]
    measured = manifest["pixel_statistics_split"]
    lines += ["", f"images        {size}, {color}; pixel mean {mean:.4f}, std {std:.4f} ({measured})"]
    lines += [f"content hash  {manifest['content_hash']}"]
    if drawn := manifest["drawn_splits"]:
        shares = ", ".join(f"{name} {share:g}" for name, share in drawn["fractions"].items())
        lines += [f"splits drawn  {shares} (seed {drawn['seed']}), identical images kept together"]
    lines += [f"note          {note}" for note in manifest["notes"]]
    if skipped := manifest["skipped"]:
        lines += ["", f"skipped {len(skipped)} bad rows or images (all are listed in {out}/manifest.json):"]
        lines += [f"  {bad['where']}: {bad['reason']}" for bad in skipped[:10]]
    audit = ["fer-jax", "audit", "--source", manifest["source"]]
    audit += [word for pair in class_map for word in ("--map", pair)] + ["--out", f"{Path(out)}_audit"]
    config = "configs/ferplus.py" if manifest["annotations"] else "configs/cnn.py"
    train = ["python", "-m", "fer_jax.main", "--config", config, f"--config.data.dir={out}"]
    lines += ["", "next:", f"  {shlex.join(audit)}", f"  {shlex.join(train + overrides(manifest))}"]
    return "\n".join(lines)


def overrides(manifest: dict) -> list[str]:
    """Returns the flags that adapt the CNN configs, written for FER2013, to other data."""
    model = cnn.get_config().model
    mean, std = round(manifest["pixel_mean"], 4), round(manifest["pixel_std"], 4)
    fields = {"channels": manifest["channels"], "mean": mean, "std": std}
    options = [f"--config.model.{name}={value}" for name, value in fields.items() if value != model[name]]
    if manifest["image_shape"] is None:
        options.append(f"--config.data.image_size={model.input_size}")
    return options
