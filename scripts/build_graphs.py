"""Builds the ONNX graphs of the bundled networks that the package carries, and verifies them.

    python scripts/build_graphs.py

To be run after a change of these networks or of the exports to ONNX.
"""

from fer_jax.inference.engines import graphs
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import BUNDLED, find_weights

for path in graphs.SHIPPED.glob("*.onnx"):
    path.unlink()
for name in BUNDLED:
    trained = LoadedModel(find_weights(name))
    graph = graphs.convert(trained)
    graphs.verify(trained, graph)
    path = graphs.SHIPPED / f"{name}-{graphs.key(trained)}.onnx"
    path.write_bytes(graph)
    print(f"{path.name}: {len(graph):,} bytes")
