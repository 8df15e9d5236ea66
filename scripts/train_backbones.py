"""Trains and evaluates the ImageNet networks by their configs, one after the other, and tables what came out.

    python scripts/train_backbones.py --out runs/backbones
    python scripts/train_backbones.py --out runs/toy --configs mobilenet_v2 -- --config.train.batch_size=32

The same command again goes on where it stopped. Official weights are downloaded, or taken from the folder
--weights if scripts/port_weights.py put them there; a network whose weights cannot be had is trained from
scratch, and the table says so. --scratch trains each from scratch as well, which shows what pretraining is
worth. What follows -- is for every training. OUT/results.md is written anew after each of them.
"""

import argparse
import importlib
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CONFIGS = ("effnet_b0", "effnet_b2", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "vgg16")
_PROBE = "import jax; d = jax.devices(); print(len(d), d[0].device_kind, 'jax', jax.__version__, sep=', ')"
_COLUMNS = ("config", "weights", "split", "accuracy (95 %)", "macro F1", "best epoch", "minutes")


def output_of(*command: str) -> str:
    """What a command prints, "" where it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


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


def row_of(name: str, weights: str, workdir: pathlib.Path) -> str:
    """A finished run's row of the table."""
    result = json.loads((workdir / "report" / "report.json").read_text())
    summary = json.loads((workdir / "summary.json").read_text())
    low, high = (100 * bound for bound in result["interval_95"]["accuracy"])
    cells = (
        f"`{name}`",
        weights,
        summary["best"]["split"],
        f"{100 * result['accuracy']:.2f} ({low:.1f} - {high:.1f})",
        f"{result['macro_f1']:.3f}",
        f"{summary['best']['epoch']:g}",
        f"{summary['seconds'] / 60:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """The exit code is that of the first training that failed, after all have been tried."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=CONFIGS, metavar="NAME")
    parser.add_argument("--weights", type=pathlib.Path, help="folder of ported weights (OUT/weights)")
    parser.add_argument("--scratch", action="store_true", help="each network from scratch as well")
    parser.add_argument("arguments", nargs="*", help="after --: for fer_jax.main")
    options = parser.parse_args()
    out = options.out.resolve()
    commit = output_of("git", "rev-parse", "--short", "HEAD") or "unknown"
    command = " ".join(["python", "scripts/train_backbones.py", *sys.argv[1:]])
    head = f"`{command}`, commit {commit}, {output_of(sys.executable, '-c', _PROBE) or 'unknown device'}"
    rows, failed = [], 0
    for name in options.configs:
        weights, words = obtain_weights(name, (options.weights or out / "weights").resolve())
        trainings = {name: (weights, words)}
        if options.scratch and weights != "none":
            trainings[f"{name}_scratch"] = "none", "from scratch"
        for run, (weights, words) in trainings.items():
            flags = ["--config", f"configs/{name}.py", "--workdir", str(out / run)]
            flags += [f"--config.init.weights={weights}", *options.arguments]
            print("\n$ python -m fer_jax.main " + " ".join(flags), flush=True)
            code = subprocess.run([sys.executable, "-m", "fer_jax.main", *flags], cwd=ROOT).returncode
            failed = failed or code
            rows.append(f"| `{name}` | {words} | failed |" if code else row_of(name, words, out / run))
            lines = [head, "", f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS), *rows]
            (out / "results.md").write_text("\n".join(lines) + "\n")
    print("\n" + (out / "results.md").read_text())
    return failed


if __name__ == "__main__":
    sys.exit(main())
