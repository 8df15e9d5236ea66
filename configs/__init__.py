"""Experiments, one per file; `default` lists every field with a comment."""

import pathlib
import re

_FOLDER = pathlib.Path(__file__).parent


def find(experiment: str) -> str:
    """Returns the value of --config for an experiment, with the path of its file.

    Args:
      experiment: a file, or the name of an experiment of this package, such as `cnn` or `configs/cnn.py`,
        which is found from any directory; optionally with a colon and the argument of its `get_config`.

    Raises:
      ValueError: there is no such file or experiment.
    """
    file, colon, value = experiment.partition(":")
    if not pathlib.Path(file).is_file():
        known = sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__")
        name = re.sub(r"^configs/|\.py$", "", file)
        if name not in known:
            raise ValueError(
                f"--config {experiment}: there is no file {pathlib.Path(file).resolve()}, and no "
                f"experiment of that name; there are: {', '.join(known)}"
            )
        file = str(_FOLDER / f"{name}.py")
    return f"{file}{colon}{value}"
