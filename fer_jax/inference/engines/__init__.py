"""Engines that run networks, one module per library.

An engine maps faces uint8 [N, side, side, channels] to probabilities float64 [N, K], and is thread-safe. It
has a `name`, a `batch_size` (of its largest batches), and `warm_up`, which compiles everything.
"""

ENGINES = ("auto", "onnx", "jax")  # for 'auto' see `classifier.Classifier`
