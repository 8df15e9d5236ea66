"""Generates synthetic faces from a seed, for the quickstart, tests, and the app.

A face has an identity (head, hair, skin, glasses, ...), a pose, an expression, and a camera (light, blur,
noise). Only the expression depends on the class, so that brightness, hair, or pose reveal nothing about it.
`face_drawing` renders the faces.

Expressions follow the Facial Action Coding System (Ekman & Friesen, 1978), with a few variants each, random
strength, and random deviations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import face_drawing
from fer_jax.data.sources.record import SPLITS

PER_CLASS = {"train": 500, "validation": 100, "test": 100}
SIDE = face_drawing.SIDE
_BATCH = 16  # small, so that intermediate arrays stay in the CPU cache

# A neutral face. Lengths are in units of half the image side, y points down; other values are in [0, 1].
_REST = {
    "brow_y": -0.37,  # height of the brows
    "brow_slope": 0.0,  # above 0 the inner ends are low (anger), below 0 they are high (sadness)
    "brow_arch": 0.05,
    "brow_gap": 0.34,  # distance of the brows' centers from the midline
    "eye_top": 0.075,  # how far the upper lid lies above the eye's center, ...
    "eye_bottom": 0.05,  # ... and the lower lid below it
    "lid_slope": 0.0,  # above 0 the upper lid hangs toward the nose, below 0 toward the temple
    "gaze_y": 0.0,
    "mouth_y": 0.50,
    "mouth_width": 0.25,
    "mouth_curve": 0.0,  # above 0 the corners are up
    "mouth_skew": 0.0,  # one corner higher than the other
    "open_top": 0.0,  # how far the upper lip is from the mouth's line, ...
    "open_bottom": 0.0,  # ... and the lower lip
    "square": 0.0,  # 0: almond-shaped opening, 1: nearly rectangular
    "lip": 0.05,
    "teeth": 0.0,  # share of the opening that the upper teeth fill
    "tongue": 0.0,
    "frown": 0.0,  # vertical lines between the brows
    "forehead": 0.0,  # horizontal lines on the forehead
    "folds": 0.0,  # lines from the nose to the corners of the mouth
    "wrinkle": 0.0,  # lines across the bridge of the nose
    "nose_up": 0.0,  # how far the nose is drawn up
    "cheeks": 0.0,  # raised cheeks: a crease below the eyes
    "tear": 0.0,
}

_EXPRESSIONS = {
    "angry": (
        # glaring, lips pressed
        dict(brow_y=-0.27, brow_slope=0.5, brow_arch=0.0, brow_gap=0.28, eye_top=0.055, eye_bottom=0.04,
             lid_slope=0.35, mouth_width=0.22, mouth_curve=-0.05, lip=0.022, frown=1.0, folds=0.3),
        # shouting, teeth bared
        dict(brow_y=-0.27, brow_slope=0.55, brow_arch=0.0, brow_gap=0.28, eye_top=0.065,
             eye_bottom=0.04, lid_slope=0.4, mouth_width=0.27, mouth_curve=-0.07, open_top=0.07,
             open_bottom=0.11, square=0.9, lip=0.035, teeth=0.45, frown=1.0, folds=0.6),
    ),
    "disgust": (
        # nose wrinkled, upper lip drawn up to one side
        dict(brow_y=-0.29, brow_slope=0.18, brow_arch=0.0, brow_gap=0.31, eye_top=0.03,
             eye_bottom=0.025, mouth_width=0.22, mouth_curve=-0.1, mouth_skew=0.25, open_top=0.05,
             open_bottom=0.0, teeth=1.0, lip=0.05, wrinkle=1.0, nose_up=0.06, folds=1.0, cheeks=0.5,
             mouth_y=0.47),
        # tongue out
        dict(brow_y=-0.29, brow_slope=0.15, brow_arch=0.0, brow_gap=0.31, eye_top=0.025,
             eye_bottom=0.02, mouth_width=0.22, mouth_curve=-0.08, open_top=0.05, open_bottom=0.09,
             square=0.3, lip=0.04, tongue=1.0, wrinkle=1.0, nose_up=0.06, folds=1.0, cheeks=0.5,
             mouth_y=0.47),
    ),
    "fear": (
        # mouth drawn wide open sideways, brows high and pinched
        dict(brow_y=-0.47, brow_slope=-0.3, brow_arch=-0.02, brow_gap=0.29, eye_top=0.13,
             eye_bottom=0.065, mouth_width=0.31, mouth_curve=-0.07, open_top=0.03, open_bottom=0.08,
             square=0.8, lip=0.035, teeth=0.5, forehead=1.0, frown=0.4),
        # mouth drawn wide, barely open
        dict(brow_y=-0.47, brow_slope=-0.33, brow_arch=-0.02, brow_gap=0.29, eye_top=0.13,
             eye_bottom=0.065, mouth_width=0.33, mouth_curve=-0.09, open_top=0.015, open_bottom=0.035,
             square=0.9, lip=0.03, teeth=1.0, forehead=1.0, frown=0.4),
    ),
    "happy": (
        # smile
        dict(brow_y=-0.38, brow_arch=0.07, eye_top=0.06, eye_bottom=0.02, mouth_width=0.31,
             mouth_curve=0.14, folds=0.8, cheeks=0.8, lip=0.045),
        # laugh
        dict(brow_y=-0.39, brow_arch=0.07, eye_top=0.045, eye_bottom=0.0, mouth_width=0.33,
             mouth_curve=0.13, open_top=0.03, open_bottom=0.18, square=0.25, lip=0.03, teeth=0.6, folds=1.0,
             cheeks=1.0),
        # grin
        dict(brow_y=-0.38, brow_arch=0.07, eye_top=0.055, eye_bottom=0.015, mouth_width=0.32,
             mouth_curve=0.13, open_top=0.03, open_bottom=0.1, lip=0.035, teeth=1.0, folds=1.0, cheeks=0.9),
    ),
    "sad": (
        # looking down, corners of the mouth down
        dict(brow_y=-0.38, brow_slope=-0.48, brow_arch=-0.01, brow_gap=0.31, eye_top=0.04,
             eye_bottom=0.045, lid_slope=-0.45, gaze_y=0.03, mouth_width=0.2, mouth_curve=-0.12, lip=0.05,
             frown=0.4),
        # crying
        dict(brow_y=-0.38, brow_slope=-0.52, brow_arch=-0.01, brow_gap=0.31, eye_top=0.02,
             eye_bottom=0.03, lid_slope=-0.4, gaze_y=0.02, mouth_width=0.22, mouth_curve=-0.14,
             open_bottom=0.03, lip=0.045, frown=0.6, folds=0.5, tear=1.0),
    ),
    "surprise": (
        # the round mouth
        dict(brow_y=-0.52, brow_arch=0.12, brow_gap=0.36, eye_top=0.135, eye_bottom=0.095,
             mouth_width=0.15, mouth_y=0.54, open_top=0.1, open_bottom=0.16, square=0.6, lip=0.04,
             forehead=0.7),
        # a small gasp
        dict(brow_y=-0.52, brow_arch=0.12, brow_gap=0.36, eye_top=0.13, eye_bottom=0.09,
             mouth_width=0.12, mouth_y=0.54, open_top=0.06, open_bottom=0.09, square=0.6, lip=0.045,
             forehead=0.7),
    ),
    "neutral": (dict(), dict(mouth_curve=0.015, eye_top=0.065), dict(mouth_curve=-0.02, lip=0.04)),
}  # fmt: skip


def generate(per_class: int | Sequence[int], seed: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Generates synthetic faces.

    The n-th face of a class depends only on `seed`, `split`, the class, and n. Classes alternate in the order
    of `EMOTIONS` until each has its number of faces.

    Args:
      per_class: number of faces per class, one for all or seven; see `PER_CLASS`.
      seed: integer, 0 or more; determines the people.
      split: one of `record.SPLITS`, which share no faces.

    Returns:
      Images uint8 [N, 48, 48, 1] and labels int32 [N] (indices of `EMOTIONS`).

    Raises:
      ValueError: the split is unknown, or a number or the seed is invalid.
    """
    if split not in SPLITS:
        raise ValueError(f"synthetic faces have no split {split!r}; there are: {', '.join(SPLITS)}")
    counts: Any = np.broadcast_to(per_class, len(EMOTIONS)) if np.ndim(per_class) == 0 else per_class
    if len(counts) != len(EMOTIONS) or min(counts) < 0 or seed < 0:
        raise ValueError(
            f"synthetic faces need one or {len(EMOTIONS)} numbers of faces and a seed, all 0 or more; "
            f"got per_class={per_class!r}, seed={seed!r}"
        )
    turn = np.concatenate([np.arange(n) for n in counts]).astype(int)
    labels = np.repeat(np.arange(len(EMOTIONS), dtype=np.int32), counts)
    order = np.lexsort((labels, turn))
    turn, labels = turn[order], labels[order]
    images = np.empty((len(labels), SIDE, SIDE, 1), np.uint8)
    for start in range(0, len(labels), _BATCH):
        part = slice(start, start + _BATCH)
        seeds = [(seed, SPLITS.index(split), c, n) for c, n in zip(labels[part], turn[part], strict=True)]
        uniform, noise = _randomness(seeds)
        dice = face_drawing.Dice(uniform)
        expression = _expression(labels[part], dice)
        images[part, :, :, 0] = face_drawing.Painter(dice, len(noise)).paint(expression, noise)
    return images, labels


def _randomness(seeds: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns uniform numbers [B, K] and normal camera noise [B, S, S]."""
    uniform = np.empty((len(seeds), face_drawing.NUM_DICE), np.float32)
    noise = np.empty((len(seeds), SIDE, SIDE), np.float32)
    for i, entropy in enumerate(seeds):
        rng = np.random.Generator(np.random.SFC64(entropy))
        rng.random(dtype=np.float32, out=uniform[i])
        rng.standard_normal(dtype=np.float32, out=noise[i])
    return uniform, noise


def _expression(labels: np.ndarray, dice: face_drawing.Dice) -> dict[str, np.ndarray]:
    """Returns the parameters in `_REST`, each float32 [B, 1, 1], for a variant of each expression."""
    rest, chosen = np.array(list(_REST.values()), np.float32), []
    for label, drawn in zip(labels, dice.between(0, 1).ravel(), strict=True):
        variants = _EXPRESSIONS[EMOTIONS[label]]
        chosen.append(list((_REST | variants[int(drawn * len(variants))]).values()))
    strength = dice.between(0.75, 1.2)[:, :, 0]
    values = rest + strength * (np.array(chosen, np.float32) - rest)
    return {name: values[:, i, None, None] for i, name in enumerate(_REST)}
