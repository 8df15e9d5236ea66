"""Shows where in the faces a model finds the evidence for its predictions (Grad-CAM).

    python scripts/saliency.py --workdir runs/cnn --data data/fer2013 --out saliency

OUT gets saliency.md (start there), a sheet for each class (angry.png ...) with faces that were taken for
what they are and faces that were not, each beside its map, the mean map of each class, and saliency.json.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_jax.evaluation import command  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = command.make_parser(__doc__, out="folder for the sheets")
    command.add_labels(parser)
    command.add_classes(parser)
    command.add_batch_size(parser, 64)
    return command.run(explain, parser.parse_args(argv))


def explain(args: argparse.Namespace) -> int:
    """Explains the split's predictions and writes the sheets; the exit code."""
    from fer_jax.evaluation import saliency, saliency_report, statistics

    trained = command.open_weights(args)
    judged, facts = command.load_judged(trained, args.data, args.split, args.labels, args.classes)
    faces = judged.faces
    out = command.open_folder(args.out)
    probs, maps = saliency.explain(
        trained.model,
        trained.variables,
        faces.images,
        trained.normalization,
        num_classes=len(judged.names),
        batch_size=args.batch_size,
    )
    command.note_test(facts, statistics.accuracy(probs, faces.labels), "saliency")
    saliency_report.write_report(out, probs, maps, faces, facts)
    print(f"{len(faces):,} faces of {args.split} explained: {out / 'saliency.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
