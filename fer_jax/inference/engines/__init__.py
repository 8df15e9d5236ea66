"""Engines: what computes a network's probabilities, one module per library.

An engine is a function of faces uint8 [N, side, side, channels] that returns their probabilities float64
[N, K], safe to call from several threads. It has a `name`, the `batch_size` of its largest batches, and
`warm_up`, after which no call has to wait for a compilation.
"""

ENGINES = ("auto", "onnx", "jax")  # 'auto' chooses, see `classifier.Classifier`
