"""Shows which parts of the faces support a network's predictions (Grad-CAM).

    fer-jax saliency --workdir runs/cnn --data data/fer2013 --out saliency

Writes to OUT saliency.md (start there), a sheet for each class (angry.png ...) of correctly and incorrectly
classified faces with their heatmaps, the mean heatmap of each class, and saliency.json.
"""

import argparse

from fer_jax.commands import common
from fer_jax.evaluation import leakage_policy


def main(argv: list[str] | None = None) -> int:
    parser = common.make_evaluation_parser(__doc__, "folder for the sheets", 64)
    return common.run(explain, parser.parse_args(argv))


def explain(args: argparse.Namespace) -> int:
    """Computes the heatmaps and writes the sheets; returns the exit code."""
    from fer_jax.evaluation.metrics import classification
    from fer_jax.evaluation.saliency import heatmaps, saliency_report

    trained, labelled, metadata, out = common.open_evaluation(args)
    faces = labelled.faces
    explainer = heatmaps.Explainer(trained, len(labelled.names))
    probs, maps = explainer(faces.images, args.batch_size)
    leakage_policy.record_test(metadata, classification.accuracy(probs, faces.labels), "saliency")
    saliency_report.write_report(out, probs, maps, faces, metadata)
    print(f"Grad-CAM of {len(faces):,} faces of {args.split}: {out / 'saliency.md'}")
    return 0
