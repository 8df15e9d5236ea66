"""Training loss: cross entropy with label smoothing, class weights, logit adjustment, and focal factor."""

import jax
import jax.numpy as jnp
import numpy as np

from fer_jax.data.emotions import class_names

NORMALIZATIONS = ("examples", "weights")


def balanced_class_weights(counts: np.ndarray) -> np.ndarray:
    """Returns weights w_i = N / (K * n_i) float32 [K] from counts n_i, as scikit-learn's "balanced".

    Raises:
      ValueError: a class has no example.
    """
    counts = np.asarray(counts, np.float64)
    _require_examples(counts, "class weights", "class_weights='none'")
    return (counts.sum() / (len(counts) * counts)).astype(np.float32)


def log_priors(targets: np.ndarray) -> np.ndarray:
    """Returns log pi_k float32 [K], pi_k the share of class k in label distributions float [N, K].

    Raises:
      ValueError: a class has no example.
    """
    shares = np.asarray(targets).mean(axis=0, dtype=np.float64)
    _require_examples(shares, "logit adjustment", "logit_adjustment=0")
    return np.log(shares).astype(np.float32)


def _require_examples(shares: np.ndarray, what: str, setting: str) -> None:
    if (shares == 0).any():
        empty = ", ".join(np.array(class_names(len(shares)))[shares == 0])
        raise ValueError(
            f"there is no training image of {empty}, which {what} needs: set config.loss.{setting}"
        )


def cross_entropy(
    logits: jnp.ndarray,
    targets: jnp.ndarray,
    *,
    label_smoothing: float = 0.0,
    class_weights: jax.typing.ArrayLike | None = None,
    focal_gamma: float = 0.0,
    logit_offsets: jax.typing.ArrayLike | None = None,
    normalization: str = "examples",
) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Returns the cross entropy of a batch as (sum, normalizer); the loss is their quotient.

    The loss of an example is w * sum_k t[k] * (1 - p[k])**focal_gamma * -log p[k], with the weight
    w = sum_k class_weights[k] * targets[k], the smoothed target
    t = (1 - label_smoothing) * targets + label_smoothing / K, and p the softmax of logits + logit_offsets.
    The normalizer is

      the number of examples with normalization="examples", as in Keras with `class_weight`, or
      the sum of the weights with "weights", as in `torch.nn.CrossEntropyLoss(weight=...)` for hard labels
      without smoothing (it weights the smoothing by class, and divides soft targets by examples).

    Sum and normalizer are returned separately, so that both can be summed over devices before dividing.

    Args:
      logits: [B, K], any float type; computed in float32.
      targets: float32 [B, K], each row a distribution (one-hot or soft).
      label_smoothing: mass spread evenly over the classes, in [0, 1) (Szegedy et al. 2016, arXiv:1512.00567).
      class_weights: float32 [K], or None for 1.
      focal_gamma: focusing parameter, 0 for plain cross entropy (Lin et al. 2017, arXiv:1708.02002).
      logit_offsets: float32 [K] added to the logits, None for 0. tau * `log_priors` is logit adjustment
        (Menon et al. 2021, arXiv:2007.07314, equation 10): inference uses the logits without the offsets,
        which with tau = 1 minimizes the balanced error.
      normalization: one of NORMALIZATIONS.

    Returns:
      Two float32 scalars, the summed loss and its normalizer.

    Raises:
      ValueError: the normalization is unknown.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization is {normalization!r}; there are: {', '.join(NORMALIZATIONS)}")
    logits = logits.astype(jnp.float32)
    log_p = jax.nn.log_softmax(logits if logit_offsets is None else logits + logit_offsets)
    smoothed = (1.0 - label_smoothing) * targets + label_smoothing / targets.shape[-1]
    terms = -smoothed * log_p
    if focal_gamma:
        # The bound keeps the gradient finite at p = 1 for exponents below 1.
        terms *= jnp.maximum(-jnp.expm1(log_p), 1e-12) ** focal_gamma
    losses = terms.sum(axis=-1)
    if class_weights is None:
        return losses.sum(), jnp.float32(losses.shape[0])
    weights = targets @ class_weights
    count = weights.sum() if normalization == "weights" else jnp.float32(losses.shape[0])
    return (weights * losses).sum(), count
