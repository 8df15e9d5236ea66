"""Checks that a network's predictions depend only on the faces.

    fer-jax check-invariance --workdir runs/cnn --data data/fer2013
    XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu \\
        fer-jax check-invariance --workdir runs/cnn --data data/fer2013   # eight simulated devices

Predicts the split again with other batch sizes, in another order, and on 2 to all devices of this machine,
and compares all probabilities; reads and preprocesses faces twice and compares every bit. Prints a table.
The exit code is 0 if no probability differs by more than 1e-5 and no predicted class changes, except for
ties; otherwise 1.
"""

import argparse

from fer_jax.commands import common


def main(argv: list[str] | None = None) -> int:
    parser = common.make_parser(__doc__)
    text = "use only the first N faces of the split"
    parser.add_argument("--limit", type=common.at_least_one, metavar="N", help=text)
    return common.run(check, parser.parse_args(argv))


def check(args: argparse.Namespace) -> int:
    """Runs the checks and prints the results; returns the exit code."""
    import jax
    import numpy as np

    from fer_jax.data import preprocessing
    from fer_jax.evaluation import invariance, labelled_split

    model = common.open_weights(args)
    faces, again = (labelled_split.load_split(model, args.data, args.split) for _ in range(2))
    if args.limit:
        faces, again = (split.take(np.arange(min(args.limit, len(faces)))) for split in (faces, again))
    devices = jax.local_device_count()
    print(f"{model.source} on {len(faces):,} faces of {args.split}, devices: {devices}", flush=True)
    print(invariance.HEADER)
    prepare = preprocessing.Preprocessing(**model.normalization)
    some = np.arange(min(256, len(faces)))
    checks = [invariance.check_transform(prepare, faces.images[some], again.images[some])]
    print(checks[0], flush=True)
    forward = preprocessing.make_forward(model.model, **model.normalization)
    for found in invariance.check_predictions(forward, model.variables, faces.images):
        checks.append(found)
        print(found, flush=True)
    if devices == 1:
        print("only one device: the number of devices was not varied")
    failed = [found.name for found in checks if not found.passed]
    if failed:
        print(f"predictions depend on: {', '.join(dict.fromkeys(failed))}")
    return 1 if failed else 0
