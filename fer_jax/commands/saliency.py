"""Shows where in the faces a model finds the evidence for its predictions (Grad-CAM).

    fer-jax saliency --workdir runs/cnn --data data/fer2013 --out saliency

Writes to OUT saliency.md (start there), a sheet for each class (angry.png ...) with faces that the model
classifies correctly and faces that it does not, each beside its map, the mean map of each class, and
saliency.json.
"""

import argparse

from fer_jax.commands import common
from fer_jax.evaluation import leakage_policy


def main(argv: list[str] | None = None) -> int:
    parser = common.make_evaluation_parser(__doc__, "folder for the sheets", 64)
    return common.run(explain, parser.parse_args(argv))


def explain(args: argparse.Namespace) -> int:
    """Explains the split's predictions and writes the sheets; returns the exit code."""
    from fer_jax.evaluation.metrics import classification
    from fer_jax.evaluation.saliency import heatmaps, saliency_report

    trained, labelled, metadata, out = common.open_evaluation(args)
    faces = labelled.faces
    explainer = heatmaps.Explainer(trained.model, trained.normalization, num_classes=len(labelled.names))
    probs, maps = explainer(trained.variables, faces.images, args.batch_size)
    leakage_policy.record_test(metadata, classification.accuracy(probs, faces.labels), "saliency")
    saliency_report.write_report(out, probs, maps, faces, metadata)
    print(f"{len(faces):,} faces of {args.split} explained: {out / 'saliency.md'}")
    return 0
