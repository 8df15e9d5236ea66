"""Convolutions: XLA's own, and on the CPU faster implementations with results equal up to rounding.

The implementation is chosen at lowering (`jax.lax.platform_dependent`), so a traced program runs on every
platform.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fer_jax.models.ops import onednn, portable, winograd

Pads = Sequence[tuple[int, int]]


class _Implementation(NamedTuple):
    """An implementation of a convolution and its gradients.

    Attributes:
      convolve: (x, kernel) -> y.
      gradients: (x, kernel, gradient of y) -> (gradient of x, gradient of kernel).
    """

    convolve: Callable[..., jnp.ndarray]
    gradients: Callable[..., tuple[jnp.ndarray, jnp.ndarray]]


def convolve(x: jnp.ndarray, kernel: jnp.ndarray, stride: int = 1, padding: str = "same") -> jnp.ndarray:
    """Returns the zero-padded convolution [B, ceil(H / stride), ceil(W / stride), D].

    Args:
      x: [B, H, W, C], float32 or bfloat16.
      kernel: [k, k, C, D], or [k, k, 1, C] for a depthwise convolution; same dtype as `x`.
      stride: stride along both axes.
      padding: 'same' or 'symmetric', see `padding_of`.

    Raises:
      ValueError: `padding` is unknown.
    """
    pads = tuple(padding_of(n, kernel.shape[0], stride, padding) for n in x.shape[1:3])
    default = functools.partial(_direct, pads=pads, stride=stride)
    if portable.is_on():
        return default(x, kernel)
    if kernel.shape[:3] == (1, 1, x.shape[3]):
        x, default = x[:, ::stride, ::stride], _product
    on_cpu = _best_on_cpu(x, kernel, pads, stride)
    return default(x, kernel) if on_cpu is None else _by_platform(default, on_cpu, x, kernel)


def padding_of(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Returns the padding (before, after) of an axis.

    Args:
      size: length of the axis.
      kernel, stride: kernel size and stride of the convolution.
      padding: 'symmetric' pads (kernel - 1) // 2 on both sides, as networks in torch do; 'same' pads as
        TensorFlow does: at stride 2, the end may get one more than the start.

    Raises:
      ValueError: `padding` is unknown.
    """
    if padding == "symmetric":
        return (kernel - 1) // 2, (kernel - 1) // 2
    if padding != "same":
        raise ValueError(f"padding={padding!r}: expected same or symmetric")
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_platform(default, on_cpu, x, kernel):
    return lax.platform_dependent(x, kernel, cpu=on_cpu.convolve, default=default)


def _by_platform_fwd(default, on_cpu, x, kernel):
    return _by_platform(default, on_cpu, x, kernel), (x, kernel)


def _by_platform_bwd(default, on_cpu, residuals, gradient):
    return lax.platform_dependent(
        *residuals, gradient, cpu=on_cpu.gradients, default=_derived(default).gradients
    )


_by_platform.defvjp(_by_platform_fwd, _by_platform_bwd)


def _derived(convolve: Callable[..., jnp.ndarray]) -> _Implementation:
    """Returns an implementation with gradients by automatic differentiation."""
    return _Implementation(convolve, lambda x, kernel, gradient: jax.vjp(convolve, x, kernel)[1](gradient))


def _direct(x: jnp.ndarray, kernel: jnp.ndarray, pads: Pads, stride: int) -> jnp.ndarray:
    """Convolves with `lax.conv_general_dilated`."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


def _product(x: jnp.ndarray, kernel: jnp.ndarray) -> jnp.ndarray:
    """Convolves with a 1x1 kernel."""
    return x @ kernel[0, 0]


# -------------------- on the CPU --------------------


def _best_on_cpu(x: jnp.ndarray, kernel: jnp.ndarray, pads: Pads, stride: int) -> _Implementation | None:
    """Returns the fastest implementation on a CPU; None for XLA's own."""
    geometry = {"pads": pads, "stride": stride}
    if kernel.shape[2] < x.shape[3]:
        if not onednn.is_usable(jnp.float32):
            return _derived(functools.partial(_shifted, **geometry))
        ways: Any = _depthwise, _depthwise_gradients
    elif x.dtype == jnp.float32 and kernel.shape[0] == 3 and stride == 1 and winograd.is_faster(x, kernel):
        return _Implementation(winograd.convolve, winograd.gradients)
    elif not onednn.is_usable(x.dtype):
        return None
    elif kernel.shape[0] == 1:
        return _Implementation(_pointwise, _pointwise_gradients)
    else:
        ways = _dense, _dense_gradients
    return _Implementation(*(functools.partial(way, **geometry) for way in ways))


def _pointwise(x, kernel):
    return onednn.matmul(x.reshape(-1, x.shape[3]), kernel[0, 0]).reshape(*x.shape[:3], -1)


def _pointwise_gradients(x, kernel, gradient):
    """Returns the gradients without materializing transposed arrays."""
    pixels, gradient = x.reshape(-1, x.shape[3]), gradient.reshape(-1, gradient.shape[3])
    d_x = onednn.matmul(gradient, kernel[0, 0], transpose_b=True).reshape(x.shape)
    return d_x, onednn.matmul(pixels, gradient, transpose_a=True).reshape(kernel.shape)


def _dense(x, kernel, pads, stride):
    return onednn.convolve(x, kernel, pads, (stride, stride))


def _dense_gradients(x, kernel, gradient, pads, stride):
    own = functools.partial(_direct, pads=pads, stride=stride)
    if x.dtype == jnp.bfloat16 and stride == 1:
        # The kernel's gradient is a convolution with the batch and channel axes swapped.
        across = onednn.convolve(x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), pads, (1, 1))
        d_kernel = across.transpose(1, 2, 0, 3)
    else:
        (d_kernel,) = jax.vjp(lambda kernel: own(x, kernel), kernel)[1](gradient)
    if stride > 1:
        (d_x,) = jax.vjp(lambda x: own(x, kernel), x)[1](gradient)
        return d_x, d_kernel
    around = _pads_of_gradient(pads, kernel.shape[0], x.shape[1:3], gradient.shape[1:3])
    return onednn.convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3), around, (1, 1)), d_kernel


def _pads_of_gradient(pads: Pads, kernel: int, inputs: Sequence[int], outputs: Sequence[int]) -> Pads:
    """Returns the padding of the output's gradient for convolving it with the reversed kernel."""
    before = [kernel - 1 - first for first, _ in pads]
    return [(b, n - m + kernel - 1 - b) for b, n, m in zip(before, inputs, outputs, strict=True)]


def _depthwise(x, kernel, pads, stride):
    """Convolves the batch as one volume [1, B, H, W, C], so that the kernel's gradient is also a convolution.

    Computes in float32 for any dtype, because long sums in bfloat16, such as the gradient's over batch and
    space, would be inaccurate.
    """
    return _volume(x.astype(jnp.float32), kernel.astype(jnp.float32), pads, stride).astype(x.dtype)


def _volume(x, kernel, pads, stride):
    return onednn.convolve(x[None], kernel[None], [(0, 0), *pads], (1, stride, stride), x.shape[-1])[0]


def _depthwise_gradients(x, kernel, gradient, pads, stride):
    kind, shape, size = x.dtype, kernel.shape, kernel.shape[0]
    x, kernel, gradient = (a.astype(jnp.float32) for a in (x, kernel, gradient))
    # Dilated by the stride, this is the gradient of a convolution with stride 1.
    apart = (0, 0, stride - 1)
    gradient = lax.pad(gradient, 0.0, ((0, 0, 0), apart, apart, (0, 0, 0)))
    inputs, outputs = x.shape[1:3], gradient.shape[1:3]
    d_x = _volume(gradient, kernel[::-1, ::-1], _pads_of_gradient(pads, size, inputs, outputs), 1)
    around = [
        (first, m + size - 1 - n - first) for (first, _), n, m in zip(pads, inputs, outputs, strict=True)
    ]
    d_kernel = onednn.convolve(
        x[None], gradient[..., None, :], [(0, 0), *around], (1, 1, 1), groups=x.shape[-1]
    )
    return d_x.astype(kind), d_kernel.reshape(shape).astype(kind)


def _shifted(x: jnp.ndarray, kernel: jnp.ndarray, pads: Pads, stride: int) -> jnp.ndarray:
    """Convolves depthwise as a sum of shifted products, ten times as fast as XLA.

    Computes in float32, for the reason given in `_depthwise`.
    """
    size, kind = kernel.shape[0], x.dtype
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    h, w = (n - size + 1 for n in x.shape[1:3])
    total: Any = sum(
        x[:, i : i + h : stride, j : j + w : stride] * kernel[i, j] for i in range(size) for j in range(size)
    )
    return total.astype(kind)
