"""Exports: a trained network as a file for other runtimes, one format per module.

The module of a format lists its PRECISIONS and has these functions:

* `write(program, path, precision, calibration)` writes the model; int8 takes its ranges from the faces uint8
  [N, S, S, C] of `calibration`.
* `load(path)` returns the model as a function of a batch of inputs.
* `versions()` returns the versions of the format and of the tools that write it.
* `annotate(path, metadata)` adds the metadata, JSON types, to the file.
"""

TOLERANCE = 1e-4  # for probabilities, in float32


class MismatchError(ValueError):
    """An export in float32 whose outputs differ from the network's."""


class UnsupportedError(ValueError):
    """A network needs an operation that the exports do not support."""
