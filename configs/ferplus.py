"""The CNN of configs/cnn.py on FER+: eight classes, the votes' majority or their distribution as labels.

Run it by `python -m fer_jax.main --config configs/ferplus.py` or, for the distribution,
`python -m fer_jax.main --config configs/ferplus.py:votes --workdir runs/ferplus_votes`, on data of
`fer-jax prepare --ferplus`; the part after the colon is a rule of fer_jax.data.ferplus.
No metric yet: not trained to the end.
"""

from configs.cnn import get_config as cnn


def get_config(labels: str = "majority"):
    c = cnn()
    c.data.dir = "data/ferplus"
    c.data.labels = f"ferplus_{labels}"
    c.data.num_classes = 8
    return c
