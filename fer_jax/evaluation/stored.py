"""Results that stay: a model's predictions and facts, small enough for a repository.

A stored result is a folder with predictions.csv.gz and facts.json, from which its report's figures, the
comparison with others and every table of them are made anew.
"""

import dataclasses
import json
import pathlib
from typing import Any

from fer_jax.evaluation import contenders, predictions, report
from fer_jax.files import write_atomically

DIGITS = 7  # of the probabilities: float32 has no more
# What a report tells about the model, the training and the evaluation, beside its figures.
_KEPT = (
    "model parameters preprocess emotions config seed ema version selection labels annotations pretrained "
    "calibration data data_hash trained_data trained_data_hash split tta checkpoint cost test_evaluations run"
).split()


@dataclasses.dataclass
class Run:
    """How a training went.

    Attributes:
      command: that started it.
      commit: of the code.
      hardware: that it ran on.
      seconds: that it took.
    """

    command: str | None = None
    commit: str | None = None
    hardware: str | None = None
    seconds: float | None = None


def store(source: pathlib.Path, folder: pathlib.Path, run: Run) -> dict[str, Any]:
    """Stores what a run or a report holds.

    Args:
      source: a run's directory or a report's folder, see `contenders.find`.
      folder: of the stored result, replaced if it is there.
      run: what is known of the training; what is None is taken from the run.

    Returns:
      The facts stored. Absolute paths in them are cut down to their last part.

    Raises:
      FileNotFoundError: there is no report.
      ValueError: it cannot be read, or has no facts or labels.
    """
    file = contenders.find(source)
    facts = contenders.read_facts(file)
    found = predictions.read(file)
    if not facts or found.labels is None:
        raise ValueError(
            f"{file} is no report's: expected report.json beside it, as scripts/evaluate.py writes"
        )
    given = {key: value for key, value in dataclasses.asdict(run).items() if value is not None}
    facts["run"] = dataclasses.asdict(Run()) | (facts.get("run") or {}) | given
    facts = _neutral({key: facts[key] for key in _KEPT if key in facts})
    folder.mkdir(parents=True, exist_ok=True)
    predictions.write(folder / contenders.STORED, found, digits=DIGITS)
    text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
    write_atomically(folder / contenders.FACTS, text.encode())
    return facts


def _neutral(value: Any) -> Any:
    """A tree of JSON whose absolute paths are cut down to their last part."""
    if isinstance(value, dict):
        return {key: _neutral(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_neutral(part) for part in value]
    return pathlib.PurePath(value).name if isinstance(value, str) and value.startswith("/") else value


def folders(root: pathlib.Path) -> list[pathlib.Path]:
    """The stored results in a folder, by name.

    Raises:
      FileNotFoundError: there are none.
    """
    found = sorted(path.parent for path in root.glob(f"*/{contenders.FACTS}"))
    if not found:
        raise FileNotFoundError(f"there are no stored results in {root}; scripts/store_result.py makes them")
    return found


def group(paths: list[pathlib.Path]) -> list[list[pathlib.Path]]:
    """Stored results by the images and labels that they are of: what can be compared."""
    groups: dict[Any, list[pathlib.Path]] = {}
    for path in paths:
        found = predictions.read(path / contenders.STORED)
        key = frozenset(zip(found.ids, found.labels.tolist(), strict=True))
        groups.setdefault(key, []).append(path)
    return list(groups.values())


def write_report(folder: pathlib.Path, out_dir: pathlib.Path) -> dict[str, Any]:
    """Makes the report of a stored result anew, without the pictures that need the faces."""
    facts = json.loads((folder / contenders.FACTS).read_text())
    found = predictions.read(folder / contenders.STORED, facts["emotions"])
    return report.write_report(
        out_dir,
        found.probs,
        found.labels,
        found.ids,
        facts=facts,
        groups=found.groups,
        copies=found.copies,
    )
