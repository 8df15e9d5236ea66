"""VGG16 (Simonyan & Zisserman 2014, arXiv:1409.1556)."""

import flax.linen as nn
import jax.numpy as jnp

from fer_jax.models.backbone import Backbone
from fer_jax.models.layers import FeatureMap, require_side
from fer_jax.models.ops.pooling import global_pool, max_pool_2x2, relu_pool

_STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class VGG16(Backbone):
    """VGG16.

    Parts: `conv_0` ... `conv_12` (with BatchNorm also `norm_0` ... `norm_12`), `hidden_0` and `hidden_1` if
    `dense`, `head`.

    Attributes:
      batch_norm: whether BatchNorm follows each convolution.
      dense: whether two dense layers of 4096 features follow the flattened features, as on ImageNet at 224
        pixels; they fix the input size. Otherwise, the features are averaged over space.
    """

    dropout: float = 0.5
    batch_norm: bool = False
    dense: bool = False

    @nn.compact
    def __call__(self, x: jnp.ndarray, train: bool = False, features: bool = False) -> jnp.ndarray:
        require_side(x, 32)
        x, index, layers = self.enter(x), 0, self.layers(train)
        for i, (count, width) in enumerate(_STAGES, 1):
            last = nn.relu if i == len(_STAGES) else relu_pool
            for tail in (nn.relu,) * (count - 1) + (last,):
                x = layers["conv"](width, 3, use_bias=True, name=f"conv_{index}")(x)
                x = layers["norm"](tail=tail, name=f"norm_{index}")(x) if self.batch_norm else tail(x)
                index += 1
        x = max_pool_2x2(FeatureMap()(x))
        if not self.dense:
            return self.leave(global_pool(x), train, features)
        x = nn.relu(nn.Dense(4096, dtype=self.dtype, name="hidden_0")(x.reshape(len(x), -1)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.relu(nn.Dense(4096, dtype=self.dtype, name="hidden_1")(x))
        return self.leave(x, train, features)


class VGG16BN(VGG16):
    """VGG16 with BatchNorm."""

    batch_norm: bool = True
