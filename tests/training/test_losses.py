"""Tests the loss by hand and against Keras, torch, SciPy, and scikit-learn."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import needed
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from fer_jax.training import losses

# FER2013's training split, in the challenge's order.
FER2013_COUNTS = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])


@pytest.fixture
def batch():
    """Returns logits [12, 7], labels [12], and class weights [7] without symmetry."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (12, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 12)
    weights = rng.uniform(0.3, 5, 7).astype(np.float32)
    return logits, labels, weights


@pytest.fixture
def soft():
    """Returns soft labels [12, 7]."""
    return np.random.default_rng(4).dirichlet(np.ones(7), 12).astype(np.float32)


def one_hot(labels):
    return np.eye(7, dtype=np.float32)[labels]


def loss(logits, targets, **kwargs):
    total, count = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(targets), **kwargs)
    assert total.dtype == count.dtype == jnp.float32
    return total / count


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    soft=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 0.3]),
    weighted=st.booleans(),
    gamma=st.sampled_from([0.0, 0.5, 2.0]),
    adjusted=st.booleans(),
    normalization=st.sampled_from(losses.NORMALIZATIONS),
)
def test_the_loss_is_its_definition(seed, soft, smoothing, weighted, gamma, adjusted, normalization):
    """Compares in double precision, for every combination of options."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (12, 7)).astype(np.float32)
    targets = rng.dirichlet(np.ones(7), 12) if soft else one_hot(rng.integers(0, 7, 12))
    targets = np.float32(targets)
    weights = rng.uniform(0.3, 5, 7).astype(np.float32) if weighted else None
    offsets = np.float32(rng.uniform(-2, 1, 7)) if adjusted else None
    chosen = {"label_smoothing": smoothing, "class_weights": weights, "focal_gamma": gamma}
    chosen |= {"logit_offsets": offsets, "normalization": normalization}

    log_p = scipy.special.log_softmax(np.float64(logits) + (offsets if adjusted else 0), axis=1)
    smoothed = (1 - smoothing) * np.float64(targets) + smoothing / 7
    each = -(smoothed * (1 - np.exp(log_p)) ** gamma * log_p).sum(axis=1)
    each_weight = targets @ weights if weighted else np.ones(12)
    count = each_weight.sum() if normalization == "weights" else 12
    expected = (each_weight * each).sum() / count
    assert loss(logits, targets, **chosen) == pytest.approx(expected, rel=2e-5)


def test_sum_and_normaliser_come_apart(batch):
    logits, labels, weights = batch
    targets = one_hot(labels)
    for normalization, count in [("examples", 12), ("weights", weights[labels].sum())]:
        kwargs = dict(class_weights=weights, normalization=normalization)
        whole = losses.cross_entropy(logits, targets, **kwargs)
        parts = [losses.cross_entropy(logits[s], targets[s], **kwargs) for s in np.split(np.arange(12), 3)]
        np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-6)
        assert float(whole[1]) == pytest.approx(count, rel=1e-6)


def test_huge_logits_stay_finite():
    logits = np.float32([[1e4, -1e4, 0, 0, 0, 0, 0]])
    assert loss(logits, one_hot([0])) == 0
    assert loss(logits, one_hot([1])) == 2e4
    assert np.isfinite(jax.grad(loss)(logits, one_hot([1]))).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_gradient_of_a_certain_prediction_is_zero(gamma):
    logits = np.float32([[100, 0, 0, 0, 0, 0, 0]])
    gradient = jax.grad(loss)(logits, one_hot([0]), focal_gamma=gamma)
    np.testing.assert_array_equal(gradient, np.zeros((1, 7)))


def test_bfloat16_logits_are_summed_in_float32(batch):
    logits, labels, _ = batch
    low = jnp.asarray(logits, jnp.bfloat16)
    rounded = np.asarray(low.astype(jnp.float32))
    assert loss(low, one_hot(labels)) == loss(rounded, one_hot(labels))


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat(np.arange(7), FER2013_COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(7), y=labels)
    weights = losses.balanced_class_weights(FER2013_COUNTS)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    np.testing.assert_allclose(weights, [1.03, 9.41, 1.00, 0.57, 0.85, 1.29, 0.83], atol=0.005)
    # All classes then have the same total weight, and examples have a mean weight of 1.
    assert weights @ FER2013_COUNTS == pytest.approx(FER2013_COUNTS.sum())


def test_balanced_weights_refuse_an_empty_class():
    with pytest.raises(ValueError, match="no training image of disgust, surprise, .*class_weights='none'"):
        losses.balanced_class_weights(np.array([3, 0, 1, 1, 1, 0, 1]))


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_logit_adjustment_is_menons_equation_10(batch, tau):
    logits, labels, _ = batch
    pi = FER2013_COUNTS / FER2013_COUNTS.sum()
    # log(1 + sum over other classes of (pi' / pi)^tau exp(f' - f)), in double precision.
    expected = 0
    for f, y in zip(logits.astype(np.float64), labels, strict=True):
        others = np.arange(7) != y
        expected += np.log1p(((pi[others] / pi[y]) ** tau * np.exp(f[others] - f[y])).sum())
    offsets = tau * losses.log_priors(np.repeat(np.eye(7), FER2013_COUNTS, axis=0))
    assert loss(logits, one_hot(labels), logit_offsets=offsets) == pytest.approx(expected / 12, rel=1e-6)


def test_priors_are_shares_of_soft_labels_too(soft):
    hard = np.repeat(np.eye(7, dtype=np.float32), FER2013_COUNTS, axis=0)
    priors = losses.log_priors(hard)
    assert priors.dtype == np.float32
    np.testing.assert_allclose(np.exp(priors), FER2013_COUNTS / 28709, rtol=1e-6)
    np.testing.assert_allclose(np.exp(losses.log_priors(soft)), soft.mean(axis=0), rtol=1e-6)


def test_priors_refuse_an_empty_class():
    with pytest.raises(ValueError, match="no training image of fear, neutral, which.*logit_adjustment=0"):
        losses.log_priors(np.eye(7)[[0, 1, 3, 4, 5]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_examples_is_keras_class_weight(batch, smoothing):
    # `model.fit(class_weight=w)` hands w[y] to the loss as sample_weight.
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = needed("keras", "test")
    logits, labels, weights = batch
    keras_loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction="sum_over_batch_size"
    )
    expected = float(keras_loss(one_hot(labels), logits, sample_weight=weights[labels]))
    result = loss(logits, one_hot(labels), label_smoothing=smoothing, class_weights=weights)
    assert result == pytest.approx(expected, rel=1e-6)


# Results of torch 2.15 for `batch` and `soft`, in double precision:
#
#   logits, weights, soft = (torch.tensor(x, dtype=torch.float64) for x in (logits, weights, soft))
#   labels, criterion = torch.tensor(labels), torch.nn.CrossEntropyLoss
#   criterion(weight=weights)(logits, labels)
#   criterion(label_smoothing=0.3)(logits, labels)
#   criterion(label_smoothing=0.3)(logits, soft)
TORCH_WEIGHTED = 3.687952813172705
TORCH_SMOOTHED = 3.5590244795874195
TORCH_SOFT_SMOOTHED = 3.453451288186333


def test_weights_and_smoothing_are_torchs(batch, soft):
    logits, labels, weights = batch
    weighted = loss(logits, one_hot(labels), class_weights=weights, normalization="weights")
    assert weighted == pytest.approx(TORCH_WEIGHTED, rel=1e-6)
    smoothed = loss(logits, one_hot(labels), label_smoothing=0.3)
    assert smoothed == pytest.approx(TORCH_SMOOTHED, rel=1e-6)
    assert loss(logits, soft, label_smoothing=0.3) == pytest.approx(TORCH_SOFT_SMOOTHED, rel=1e-6)


def test_an_unknown_normalisation_lists_the_known():
    with pytest.raises(ValueError, match="'mean'; there are: examples, weights"):
        loss(np.zeros((1, 7)), one_hot([0]), normalization="mean")
