"""Converts official ImageNet weights to a safetensors file from which training can start.

    fer-jax port-weights --model efficientnet_b0 --from keras --out weights

writes weights/efficientnet_b0_keras.safetensors, with metadata of the conversion inside. Train from it by
--config.init.weights=weights/efficientnet_b0_keras.safetensors; --config.init.weights=keras does both at
once. Without --file the official file is downloaded to $FER_JAX_CACHE (~/.cache/fer_jax); an interrupted
download resumes. Every array of the file is used exactly once, or the command lists which are missing,
unexpected, or of another shape. The classifier is left out. The exit code is 69 if the file is neither in the
cache nor available for download.
"""

import argparse
import os
import sys
from pathlib import Path

from fer_jax.pretrained.key_map import ECOSYSTEMS


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = "network name, such as efficientnet_b0"
    parser.add_argument("--model", required=True, metavar="NAME", help=text)
    text = "library that published the weights"
    parser.add_argument("--from", required=True, dest="ecosystem", choices=ECOSYSTEMS, help=text)
    text = ".pth, .safetensors, or .h5 file (default: download)"
    parser.add_argument("--file", type=Path, metavar="PATH", help=text)
    parser.add_argument("--out", type=Path, required=True, metavar="OUT", help="folder for the result")
    parser.add_argument(
        "--absent", nargs="+", default=[], metavar="KEY", help="names of all arrays that a partial file lacks"
    )
    parser.add_argument("--with_head", action="store_true", help="keep the 1000-class ImageNet classifier")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> Path:
    """Writes the converted weights and returns their file."""
    from fer_jax.pretrained import imagenet
    from fer_jax.pretrained.weights_file import WEIGHTS_SUFFIX, export_weights

    pretrained = imagenet.convert(
        args.model, args.ecosystem, args.file, with_head=args.with_head, absent=args.absent
    )
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.model}_{args.ecosystem}{WEIGHTS_SUFFIX}"
    export_weights(path, pretrained.variables, pretrained.metadata)
    return path


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from fer_jax.pretrained.download import DownloadError

    try:
        path = run(args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(os.EX_UNAVAILABLE if isinstance(error, DownloadError) else 1)
    print(f"{path}\ntrain from it: --config.init.weights={path}")
