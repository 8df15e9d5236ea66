"""Converts official ImageNet weights to a safetensors file that training can start from.

    fer-jax port-weights --model efficientnet_b0 --from keras --out weights

writes weights/efficientnet_b0_keras.safetensors. To train from it, set
--config.init.weights=weights/efficientnet_b0_keras.safetensors; --config.init.weights=keras converts and
trains at once. Without --file the official file is downloaded to $FER_JAX_CACHE (~/.cache/fer_jax); an
interrupted download resumes. Every array of the file must be used exactly once; otherwise the command lists
arrays that are missing, unexpected, or of another shape. The classifier is dropped. The exit code is 69 if
the file is neither in the cache nor available for download.
"""

import argparse
import os
import sys
from pathlib import Path

from fer_jax.commands import common
from fer_jax.pretrained.key_map import ECOSYSTEMS


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="network name, such as efficientnet_b0")
    text = "library that published the weights"
    add("--from", required=True, dest="ecosystem", choices=ECOSYSTEMS, help=text)
    text = ".pth, .safetensors, or .h5 file (default: download)"
    add("--file", type=Path, metavar="PATH", help=text)
    add("--out", type=Path, required=True, metavar="OUT", help="folder for the result")
    text = "names of all arrays that a partial file lacks"
    add("--absent", nargs="+", default=[], metavar="KEY", help=text)
    add("--with_head", action="store_true", help="keep the 1000-class ImageNet classifier")
    return common.run(port, parser.parse_args(argv))


def port(args: argparse.Namespace) -> int:
    """Writes the converted weights; returns the exit code."""
    from fer_jax.pretrained import imagenet
    from fer_jax.pretrained.download import DownloadError
    from fer_jax.pretrained.weights_file import WEIGHTS_SUFFIX, export_weights

    common.open_folder(args.out)
    try:
        found = imagenet.convert(
            args.model, args.ecosystem, args.file, with_head=args.with_head, absent=args.absent
        )
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE
    path = args.out / f"{args.model}_{args.ecosystem}{WEIGHTS_SUFFIX}"
    export_weights(path, found.variables, found.metadata)
    print(f"{path}\ntrain from it: --config.init.weights={path}")
    return 0
