"""Exports a trained network for other runtimes, and verifies the export.

    fer-jax export --checkpoint my.safetensors --format onnx --out my.onnx
    fer-jax export --workdir runs/cnn --format tflite --precision int8 --data DATA --out cnn.tflite

The export takes faces uint8 [N, S, S, C] in [0, 255], for any N, of the size S of the training faces, and
returns calibrated probabilities. With --preprocessing outside it takes enlarged and normalized float32; with
--softmax outside it returns logits. Its metadata contains labels, normalization, license, accuracy, and
versions: in the properties of an ONNX model, a zip archive appended to a TFLite model, a JSON file next to a
StableHLO file, or the header of a safetensors file.

The export is compared with the network on 512 faces of DATA's validation split, or on synthetic faces: in
float32, probabilities may differ by at most 1e-4 and predictions must agree, or nothing is written. With
--data, the accuracy of both is measured on the entire split, and int8 is calibrated on training faces.
"""

import argparse
from pathlib import Path

from fer_jax.commands import common


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    add = parser.add_argument
    common.add_weights(parser)
    formats, precisions = ("onnx", "tflite", "stablehlo", "safetensors"), ("float32", "float16", "int8")
    add("--format", required=True, choices=formats, help="file format")
    add("--out", required=True, metavar="FILE", help="output file")
    text = "numeric precision; int8 requires --data"
    add("--precision", default="float32", choices=precisions, help=text)
    text, sides = "whether {} is part of the exported model or left to the caller", ("inside", "outside")
    add("--preprocessing", default="inside", choices=sides, help=text.format("enlarging and normalization"))
    add("--softmax", default="inside", choices=sides, help=text.format("softmax"))
    add("--data", metavar="DATA", help="dataset for verification and int8 calibration")
    return common.run(export, parser.parse_args(argv))


def export(args: argparse.Namespace) -> int:
    """Writes and verifies the export and prints a summary; returns the exit code."""
    from fer_jax.inference.export import check
    from fer_jax.inference.export import export as exports
    from fer_jax.inference.export.program import Program

    program = Program(common.open_weights(args), args.preprocessing, args.softmax)
    form = exports.open_format(args.format)
    faces = check.load_faces(program, args.data)
    metadata = exports.export(program, args.format, args.out, args.precision, faces)
    print(summary(args.out, metadata))
    ours = check.latency(program.run, faces.images[: check.BATCH])
    theirs = check.latency(form.load(Path(args.out)), program.prepare(faces.images[: check.BATCH]))
    for size, milliseconds in theirs.items():
        print(f"  {'milliseconds for ' + size:26} {milliseconds:.2f} (the network in JAX: {ours[size]:.2f})")
    return 0


def summary(out: str, metadata: dict) -> str:
    """Describes the file and its comparison with the network."""
    found, given, wanted = metadata["verified"], metadata["input"], metadata["output"]
    lines = [
        f"{out}: {metadata['precision']}, {Path(out).stat().st_size / 1e6:.1f} MB, {given['dtype']} "
        f"{given['shape']} to {wanted['name']} {wanted['shape']}, temperature {wanted['temperature']:.3f} "
        f"{'applied' if wanted['temperature_applied'] else 'not applied'}",
        "  " + ", ".join(f"{name} {version}" for name, version in metadata["versions"].items()),
        f"  on {found['faces']} faces, {found['of']}:",
        f"  {'largest difference':26} {found['largest_difference']:.2e}",
        f"  {'same prediction':26} {found['same_prediction']:.2%}",
    ]
    if "accuracy" in found:
        low, high = found["interval_95"]
        lines.append(
            f"  {'accuracy, entire split':26} {found['accuracy']:.4f} ({found['accuracy_change']:+.4f}; the "
            f"network {found['accuracy_of_the_network']:.4f}, 95 % {low:.4f} - {high:.4f})"
        )
    return "\n".join(lines)
