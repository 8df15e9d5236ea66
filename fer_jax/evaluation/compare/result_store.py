"""Stores results, the predictions and metadata of models, in a form small enough for a repository.

A stored result is a folder with predictions.csv.gz and facts.json, from which reports, comparisons, and
tables are generated. A stored ablation is a folder with ablation.json and RECIPE.SEED.csv.gz for each run.
"""

import contextlib
import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.compare import model_results, sweep
from fer_jax.evaluation.report import report
from fer_jax.io_utils import move_into_place, read_json, write_json

ABLATION = "ablation.json"
DIGITS = 7  # significant digits of float32 probabilities
ABLATION_DIGITS = 6  # fewer, because there are many files
# The origin of a run: its command line, the commit of the code, the hardware, and the training time.
RUN = ("command", "commit", "hardware", "seconds")
# Fields of a report about model, training, and evaluation, without metrics.
_KEPT = (
    "model parameters preprocess emotions config seed ema version selection labels annotations pretrained "
    "calibration data data_hash trained_data trained_data_hash split tta checkpoint cost test_evaluations "
    "annotators run ancestors steered_by split_size"
).split()


def store(
    source: pathlib.Path,
    folder: pathlib.Path,
    run: dict[str, Any],
    robustness: pathlib.Path | None = None,
    replace: bool = False,
) -> dict[str, Any]:
    """Stores a run or a report.

    Args:
      source: run directory or report folder, see `model_results.find`.
      folder: folder of the stored result.
      run: origin of the run, `RUN`; fields that are None are taken from the run directory.
      robustness: output folder of `fer-jax robustness` for the same weights and split.
      replace: whether to replace a result in the folder.

    Returns:
      The stored metadata; absolute paths are shortened to their last part.

    Raises:
      FileExistsError: the folder is not empty and `replace` is False, or it is not a stored result.
      FileNotFoundError: there is no report.
      ValueError: the report cannot be read or lacks metadata or labels, the commit differs from that of the
        run, or the robustness is for other weights or images.
    """
    file = model_results.find(source)
    metadata = model_results.read_metadata(file)
    found = predictions_file.read(file)
    if not metadata or found.labels is None:
        raise ValueError(f"{file} has no report.json next to it: give the --out of fer-jax evaluate")
    kept = {key: metadata[key] for key in _KEPT if key in metadata}
    kept["run"] = _run(metadata.get("run") or {}, run)
    kept["robustness"] = None if robustness is None else _robustness(robustness, metadata)
    with _take_place(folder, replace) as new:
        predictions_file.write(new / model_results.STORED, found, digits=DIGITS)
        return _write(new / model_results.METADATA, kept)


@contextlib.contextmanager
def _take_place(folder: pathlib.Path, replace: bool) -> Iterator[pathlib.Path]:
    """Yields a temporary folder, which then replaces `folder`."""
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if found and not replace:
        raise FileExistsError(
            f"{folder} is not empty ({', '.join(found[:3])}{', ...' * (len(found) > 3)}): give another "
            "--name, or --replace to replace the result"
        )
    if found and not {model_results.METADATA, ABLATION}.intersection(found):
        raise FileExistsError(f"{folder} is not a stored result, and is not replaced: give another --name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as room:
        new, old = pathlib.Path(room, "new"), pathlib.Path(room, "old")
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        move_into_place(new, folder)


def _run(known: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in run.items() if value is not None}
    noted, commit = known.get("commit"), given.get("commit")
    if noted and commit and not (commit.startswith(noted) or noted.startswith(commit)):
        raise ValueError(f"--commit {commit}: the run recorded commit {noted}; drop the flag")
    return dict.fromkeys(RUN) | known | given | ({"commit": noted} if noted else {})


def _robustness(folder: pathlib.Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Returns the stored part of robustness.json."""
    path = folder / "robustness.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: give the --out of fer-jax robustness")
    found = read_json(path)
    for key in ("model", "selection", "data_hash", "split", "labels"):
        if found.get(key) != metadata.get(key):
            raise ValueError(f"{path} is for other weights or images than the report: its {key} differs")
    kept = ("num_examples", "clean", "mean_corruption_accuracy", "kept", "leak_free")
    means = {name: of["mean"] for name, of in found["corruptions"].items()}
    return {key: found[key] for key in kept} | {"corruptions": means}


def _write(path: pathlib.Path, metadata: dict[str, Any]) -> dict[str, Any]:
    metadata = _neutral(metadata)
    write_json(path, metadata, indent=1)
    return metadata


def _neutral(value: Any) -> Any:
    """Shortens absolute paths in a JSON tree, also in flags, to their last part."""
    if isinstance(value, dict):
        return {key: _neutral(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_neutral(part) for part in value]
    return re.sub(r"(^|=)/(?:[^/=]*/)*", r"\1", value) if isinstance(value, str) else value


def store_ablation(
    source: pathlib.Path, folder: pathlib.Path, run: dict[str, Any], replace: bool = False
) -> dict[str, Any]:
    """Stores the results of `fer-jax sweep --baseline`.

    Args:
      source: its --out.
      folder: folder of the stored ablation.
      run: origin of the runs, `RUN`.
      replace: whether to replace a result in the folder.

    Returns:
      The stored metadata, see `load_ablation`.

    Raises:
      FileExistsError: the folder is not empty and `replace` is False, or it is not a stored result.
      FileNotFoundError: a run or the results are missing.
      ValueError: a file cannot be read, a trial failed, or the results are not from an ablation.
    """
    results = read_json(source / "results.json")
    if results.get("baseline"):
        recipes = [
            [name, [f"--config.{field}={value}" for field, value in row["fields"].items()]]
            for name, row in results["trials"].items()
        ]
    elif "recipes" in results:  # written by fer-jax ablate, the former name of the command
        recipes = [[name, row["flags"]] for name, row in results["recipes"].items()]
    else:
        raise ValueError(
            f"{source / 'results.json'} has no baseline: expected the --out of fer-jax sweep --baseline; "
            "from other sweeps store single runs, TRIAL/seed_N"
        )
    if results["failed"]:
        raise ValueError(f"{source} is incomplete: {', '.join(results['failed'])} failed")
    runs = [(name, seed) for name, _ in recipes for seed in results["seeds"]]
    files = [model_results.find(source / name / f"seed_{seed}") for name, seed in runs]
    first = model_results.read_metadata(files[0])
    kept = ("model", "parameters", "config", "data", "data_hash", "split", "emotions")
    metadata = {key: first[key] for key in kept}
    metadata |= {"seeds": results["seeds"], "recipes": recipes, "run": _run({}, run)}
    found = [predictions_file.read(file) for file in files]
    with _take_place(folder, replace) as new:
        for (name, seed), of in zip(runs, found, strict=True):
            predictions_file.write(new / f"{name}.{seed}.csv.gz", of, digits=ABLATION_DIGITS)
        return _write(new / ABLATION, metadata)


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A stored ablation."""

    # 'model', 'parameters', 'config', 'data', 'data_hash', 'split' and 'emotions' of the baseline, 'seeds',
    # 'recipes' (pairs of a name and its flags), 'run' (see `RUN`).
    metadata: dict[str, Any]
    images: int  # their number
    figures: dict[str, dict[str, Any]]  # result of `sweep.compare`


def load_ablation(folder: pathlib.Path) -> Ablation:
    """Reads a stored ablation and computes its metrics.

    Raises:
      ValueError: a file cannot be read, or has other images than the first.
    """
    metadata = read_json(folder / ABLATION)
    seeds = metadata["seeds"]
    files = {name: [folder / f"{name}.{seed}.csv.gz" for seed in seeds] for name, _ in metadata["recipes"]}
    runs, first = sweep.read_predictions(files, metadata["emotions"])
    return Ablation(metadata, len(first.ids), sweep.compare(runs, first.labels, first.groups))


def folders(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns the stored results in a folder, sorted by name.

    Raises:
      FileNotFoundError: there are none.
    """
    found = sorted(path.parent for path in root.glob(f"*/{model_results.METADATA}"))
    if not found:
        raise FileNotFoundError(f"no stored results in {root}: store some with scripts/store_result.py")
    return found


def group(paths: list[pathlib.Path]) -> list[list[pathlib.Path]]:
    """Groups stored results by images and labels, so that those of a group are comparable."""
    groups: dict[Any, list[pathlib.Path]] = {}
    for path in paths:
        found = predictions_file.read(path / model_results.STORED)
        key = frozenset(zip(found.ids, found.labels.tolist(), strict=True))
        groups.setdefault(key, []).append(path)
    return list(groups.values())


def write_report(folder: pathlib.Path, out_dir: pathlib.Path) -> dict[str, Any]:
    """Writes the report of a stored result, without the figures that need the images."""
    metadata = read_json(folder / model_results.METADATA)
    found = predictions_file.read(folder / model_results.STORED, metadata["emotions"])
    of_images = {"groups": found.groups, "copies": found.copies}
    return report.write_report(out_dir, found.probs, found.labels, found.ids, metadata=metadata, **of_images)
