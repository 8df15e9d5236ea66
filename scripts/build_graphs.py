"""Builds and verifies the ONNX graphs of the bundled networks, which are part of the package.

    python scripts/build_graphs.py

Run it after changing these networks or the export to ONNX.
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
