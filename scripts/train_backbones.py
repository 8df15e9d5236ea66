"""Trains and evaluates the ImageNet networks by their configs, one after the other, and tables what came out.

    python scripts/train_backbones.py --out runs/backbones
    python scripts/train_backbones.py --out runs/toy --configs mobilenet_v2 -- --config.train.batch_size=32

The same command again goes on where it stopped. Official weights are downloaded, or taken from the folder
--weights if scripts/port_weights.py put them there; a network whose weights cannot be had is trained from
scratch, and the table says so. --scratch trains each from scratch as well, which shows what pretraining is
worth. What follows -- is for every training. OUT/results.md is written anew after each of them.
"""

import importlib
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import trainings  # noqa: E402

CONFIGS = ("effnet_b0", "effnet_b2", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "vgg16")
_COLUMNS = ("config", "weights", "split", "accuracy (95 %)", "macro F1", "best epoch", "minutes")


def obtain_weights(name: str, folder: pathlib.Path) -> tuple[str, str]:
    """The value of config.init.weights for a config, and what the table says about it."""
    config = importlib.import_module(f"configs.{name}").get_config()
    model, ecosystem = config.model.name, config.init.weights
    path = folder / f"{model}_{ecosystem}.safetensors"
    if not path.is_file():
        port = [sys.executable, "scripts/port_weights.py", "--model", model, "--from", ecosystem]
        if subprocess.run([*port, "--out", str(folder)], cwd=ROOT).returncode:
            return "none", f"from scratch ({ecosystem}'s could not be had)"
    return str(path), f"ImageNet, {ecosystem}"


def row_of(name: str, weights: str, workdir: pathlib.Path) -> tuple[str, ...]:
    """A finished run's row of the table."""
    result = json.loads((workdir / "report" / "report.json").read_text())
    summary = json.loads((workdir / "summary.json").read_text())
    low, high = (100 * bound for bound in result["interval_95"]["accuracy"])
    return (
        f"`{name}`",
        weights,
        summary["best"]["split"],
        f"{100 * result['accuracy']:.2f} ({low:.1f} - {high:.1f})",
        f"{result['macro_f1']:.3f}",
        f"{summary['best']['epoch']:g}",
        f"{summary['seconds'] / 60:.1f}",
    )


def main() -> int:
    """The exit code is that of the first training that failed, after all have been tried."""
    parser = trainings.make_parser(__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=CONFIGS, metavar="NAME")
    parser.add_argument("--weights", type=pathlib.Path, help="folder of ported weights (OUT/weights)")
    parser.add_argument("--scratch", action="store_true", help="each network from scratch as well")
    options = parser.parse_args()
    out, head = options.out.resolve(), trainings.origin()
    rows, failed = [], 0
    for name in options.configs:
        weights, words = obtain_weights(name, (options.weights or out / "weights").resolve())
        runs = {name: (weights, words)}
        if options.scratch and weights != "none":
            runs[f"{name}_scratch"] = "none", "from scratch"
        for run, (weights, words) in runs.items():
            flags = [f"--config.init.weights={weights}", *options.arguments]
            code = trainings.train(f"configs/{name}.py", out / run, *flags)
            failed = failed or code
            rows.append((f"`{name}`", words, "failed") if code else row_of(name, words, out / run))
            lines = [head, "", *trainings.table(_COLUMNS, rows)]
            (out / "results.md").write_text("\n".join(lines) + "\n")
    print("\n" + (out / "results.md").read_text())
    return failed


if __name__ == "__main__":
    sys.exit(main())
