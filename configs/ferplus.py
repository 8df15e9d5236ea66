"""The CNN of configs/cnn.py on FER+: eight classes, with the majority or the distribution of votes as labels.

Run it with `python -m fer_jax.main --config configs/ferplus.py` or, for the distribution,
`python -m fer_jax.main --config configs/ferplus.py:votes --workdir runs/ferplus_votes`, on a dataset from
`fer-jax prepare --ferplus`. The part after the colon is a rule of fer_jax.data.ferplus.
It has no result yet: it has not been trained to the end.
"""

from configs.cnn import get_config as cnn


def get_config(labels: str = "majority"):
    c = cnn()
    c.data.dir = "data/ferplus"
    c.data.labels = f"ferplus_{labels}"
    c.data.num_classes = 8
    return c
