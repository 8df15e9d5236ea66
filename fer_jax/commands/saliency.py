"""Shows where in the faces a model finds the evidence for its predictions (Grad-CAM).

    fer-jax saliency --workdir runs/cnn --data data/fer2013 --out saliency

OUT gets saliency.md (start there), a sheet for each class (angry.png ...) with faces that were taken for
what they are and faces that were not, each beside its map, the mean map of each class, and saliency.json.
"""

import argparse

from fer_jax.commands import common
from fer_jax.evaluation import leakage_policy


def main(argv: list[str] | None = None) -> int:
    parser = common.make_parser(__doc__, out="folder for the sheets")
    common.add_labels(parser)
    common.add_classes(parser)
    common.add_batch_size(parser, 64)
    return common.run(explain, parser.parse_args(argv))


def explain(args: argparse.Namespace) -> int:
    """Explains the split's predictions and writes the sheets; the exit code."""
    from fer_jax.evaluation.metrics import classification
    from fer_jax.evaluation.saliency import heatmaps, saliency_report

    trained = common.open_weights(args)
    judged, facts = common.load_labelled(trained, args.data, args.split, args.labels, args.classes)
    faces = judged.faces
    out = common.open_folder(args.out)
    probs, maps = heatmaps.explain(
        trained.model,
        trained.variables,
        faces.images,
        trained.normalization,
        num_classes=len(judged.names),
        batch_size=args.batch_size,
    )
    leakage_policy.note_test(facts, classification.accuracy(probs, faces.labels), "saliency")
    saliency_report.write_report(out, probs, maps, faces, facts)
    print(f"{len(faces):,} faces of {args.split} explained: {out / 'saliency.md'}")
    return 0
