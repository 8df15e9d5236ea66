"""Experiments, one a file; `default` has every field with a comment."""

import pathlib
import re

_FOLDER = pathlib.Path(__file__).parent


def find(experiment: str) -> str:
    """Returns the value of --config for an experiment, with the path of its file.

    Args:
      experiment: a file, or from any directory the name of an experiment of this package, as `cnn` or
        `configs/cnn.py`; perhaps followed by a colon and what its `get_config` takes.

    Raises:
      ValueError: there is neither.
    """
    file, colon, value = experiment.partition(":")
    if not pathlib.Path(file).is_file():
        known = sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__")
        name = re.sub(r"^configs/|\.py$", "", file)
        if name not in known:
            raise ValueError(
                f"--config {experiment}: there is no {pathlib.Path(file).resolve()}, and no "
                f"experiment of that name; there are: {', '.join(known)}"
            )
        file = str(_FOLDER / f"{name}.py")
    return f"{file}{colon}{value}"
