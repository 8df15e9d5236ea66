"""Exports a trained network for other runtimes, and runs the result beside the network before it is kept.

    fer-jax export --checkpoint my.safetensors --format onnx --out my.onnx
    fer-jax export --workdir runs/cnn --format tflite --precision int8 --data DATA --out cnn.tflite

The export takes faces uint8 [N, S, S, C] in [0, 255], any number at once, and gives probabilities at the
temperature of the weights. --preprocessing outside makes it take float32 that is normalised already,
--softmax outside give logits. Labels, normalisation, licence, accuracy and versions are in its metadata: an
ONNX model's properties, an archive behind a TFLite model, a JSON file beside a StableHLO one, a safetensors
file's header.

It is tried on 512 faces: in float32 no probability may differ from the network's by more than 1e-4, and no
prediction at all, or nothing is written. The faces are those of DATA's validation split, otherwise synthetic
ones; with --data the accuracy on the whole split is measured before and after, too, and int8 is calibrated
with faces of the training split.
"""

import argparse
from pathlib import Path

from fer_jax.commands import common


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common.add_weights(parser)
    parser.add_argument(
        "--format", required=True, choices=("onnx", "tflite", "stablehlo", "safetensors"), help="of the file"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the file")
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "float16", "int8"),
        help="of weights and computation (default: float32)",
    )
    for name, what in (
        ("preprocessing", "uint8 to normalised float32"),
        ("softmax", "logits to probabilities"),
    ):
        parser.add_argument(
            f"--{name}",
            default="inside",
            choices=("inside", "outside"),
            help=f"{what}: done by the export or left to the caller (default: inside)",
        )
    parser.add_argument("--data", metavar="DATA", help="made by fer-jax prepare; to try it on")
    return common.run(export, parser.parse_args(argv))


def export(args: argparse.Namespace) -> int:
    """Writes, checks and says what was found; the exit code."""
    from fer_jax.inference.export import check
    from fer_jax.inference.export import export as exports
    from fer_jax.inference.export.program import Program

    program = Program(common.open_weights(args), args.preprocessing, args.softmax)
    form = exports.open_format(args.format)
    faces = check.load_faces(program, args.data)
    facts = exports.export(program, args.format, args.out, args.precision, faces)
    print(summary(args.out, facts))
    ours = check.latency(program.run, faces.images[: check.BATCH])
    theirs = check.latency(form.load(Path(args.out)), program.prepare(faces.images[: check.BATCH]))
    for size, milliseconds in theirs.items():
        print(f"  {'milliseconds for ' + size:26} {milliseconds:.2f} (the network here: {ours[size]:.2f})")
    return 0


def summary(out: str, facts: dict) -> str:
    """What is in the file, and what was found on it."""
    found, given, wanted = facts["verified"], facts["input"], facts["output"]
    lines = [
        f"{out}: {facts['precision']}, {Path(out).stat().st_size / 1e6:.1f} MB, {given['dtype']} "
        f"{given['shape']} to {wanted['name']} {wanted['shape']}, temperature {wanted['temperature']:.3f} "
        f"{'applied' if wanted['temperature_applied'] else 'not applied'}",
        "  " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        f"  on {found['faces']} faces, {found['of']}:",
        f"  {'largest difference':26} {found['largest_difference']:.2e}",
        f"  {'same prediction':26} {found['same_prediction']:.2%}",
    ]
    if "accuracy" in found:
        lines.append(
            f"  {'accuracy, whole split':26} {found['accuracy']:.4f} ({found['accuracy_change']:+.4f}; the "
            f"network {found['accuracy_of_the_network']:.4f}, 95 % {found['interval_95'][0]:.4f} - "
            f"{found['interval_95'][1]:.4f})"
        )
    return "\n".join(lines)
