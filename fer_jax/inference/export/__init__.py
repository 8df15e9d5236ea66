"""Exports trained networks for other runtimes, one format per module.

The module of a format has a tuple PRECISIONS and these functions:

* `write(program, path, precision, calibration)` writes the model; int8 is calibrated on the faces uint8
  [N, S, S, C] in `calibration`.
* `load(path)` returns the model as a function of a batch of inputs.
* `versions()` returns the versions of the format and of the tools that write it.
* `annotate(path, metadata)` adds metadata, as JSON types, to the file.
"""

TOLERANCE = 1e-4  # for probabilities, in float32


class MismatchError(ValueError):
    """A float32 export whose outputs differ from the network's."""


class UnsupportedError(ValueError):
    """A network that needs an operation that exports do not support."""
