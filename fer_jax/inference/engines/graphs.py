"""Builds and caches ONNX graphs without weights, which are read from the weights file.

Graphs of the bundled networks are in the package; others are built with JAX once and cached. A graph depends
only on architecture, preprocessing, and temperature, so networks can share it.
"""

import contextlib
import hashlib
import json
import logging
import pathlib
from typing import Any

import numpy as np

from fer_jax import __version__
from fer_jax.inference.export import TOLERANCE, MismatchError
from fer_jax.io_utils import write_atomically
from fer_jax.pretrained import download
from fer_jax.pretrained.loaded_model import LoadedModel

INPUT = "faces"
SHIPPED = pathlib.Path(__file__).parent / "graphs"
_FACES = 64  # for verifying a graph


def key(trained: LoadedModel) -> str:
    """Returns the cache key of a network's graph, 16 hexadecimal digits."""
    kept = {name: trained.metadata[name] for name in ("model", "preprocess", "emotions")}
    kept |= {"face": trained.face_shape, "temperature": trained.temperature}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def find(trained: LoadedModel) -> bytes | None:
    """Returns a network's graph from the package or, undamaged, from the cache; else None."""
    name = key(trained)
    for path in SHIPPED.glob(f"*-{name}.onnx"):
        return path.read_bytes()
    with contextlib.suppress(OSError):  # no cache, or one that cannot be read
        for path in _cache().glob(f"{name}-*.onnx"):
            graph = path.read_bytes()
            if path == _place(trained, graph):
                return graph
    return None


def build(trained: LoadedModel) -> bytes:
    """Builds a network's graph with JAX, verifies it, and caches it if possible.

    Raises:
      UnsupportedError: the network needs an operation that exports do not support.
      MismatchError: the graph differs from the network.
    """
    logging.info("building the ONNX graph of %s (once; takes some seconds)", trained.source)
    graph = convert(trained)
    verify(trained, graph)
    try:
        path = _place(trained, graph)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, graph)
    except OSError as error:
        logging.warning("the ONNX graph cannot be cached (%s): set $%s", error, download.CACHE_VARIABLE)
    return graph


def convert(trained: LoadedModel) -> bytes:
    """Converts a network to an ONNX graph with external parameters, named as in the weights file."""
    import jax

    from fer_jax.inference.export import graph, onnx_format
    from fer_jax.inference.export.program import Program

    def parameter(path: Any, leaf: np.ndarray) -> graph.Expression:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return graph.Expression("parameter", (name,), leaf.shape)

    parameters = jax.tree_util.tree_map_with_path(parameter, trained.variables)
    return onnx_format.build(Program(trained), parameters).SerializeToString()


def verify(trained: LoadedModel, graph: bytes) -> None:
    """Compares a graph with JAX on synthetic faces.

    Raises:
      MismatchError: a probability differs by more than `TOLERANCE`.
    """
    from fer_jax.data.sources import synthetic
    from fer_jax.inference.engines.jax_engine import JaxEngine
    from fer_jax.inference.engines.onnx_engine import OnnxEngine
    from fer_jax.inference.export.program import Program

    drawn, _ = synthetic.generate(-(-_FACES // 7), seed=0, split="validation")
    faces = Program(trained).fit(drawn[:_FACES])
    difference = abs(OnnxEngine(trained, graph)(faces) - JaxEngine(trained, (_FACES,))(faces)).max()
    if not difference <= TOLERANCE:
        raise MismatchError(
            f"the ONNX graph of {trained.source} differs from the network by up to {difference:.2g} in "
            f"probability; expected at most {TOLERANCE:.0e}. Use --engine jax, and please report this"
        )


def _place(trained: LoadedModel, graph: bytes) -> pathlib.Path:
    """Returns where the cache keeps a graph, under a name that tells whether it is undamaged."""
    return _cache() / f"{key(trained)}-{hashlib.sha256(graph).hexdigest()[:16]}.onnx"


def _cache() -> pathlib.Path:
    return download.cache_dir() / "graphs" / __version__
