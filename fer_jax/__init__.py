"""fer_jax: facial emotion recognition in JAX."""

__version__ = "0.1.0"
