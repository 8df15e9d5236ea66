"""Renders batches of faces with NumPy: shapes are signed distances, antialiased over one pixel.

Arrays are float32 [B, S, S], numbers per face [B, 1, 1]. Lengths are in units of half the image side, with x
to the right and y down from the center of the face. Pixels use only sums, products, quotients, and square
roots, so faces are identical on every machine.
"""

import numpy as np

SIDE = 48
NUM_DICE = 192  # random numbers per face


class Dice:
    """Random numbers of faces, uniform in [0, 1), float32 [B, K], consumed column by column."""

    def __init__(self, uniform: np.ndarray):
        self._columns = iter(uniform.T)

    def between(self, low: float, high: float) -> np.ndarray:
        """Returns uniform numbers, float32 [B, 1, 1]."""
        column = next(self._columns)[:, None, None]
        return np.float32(low) + np.float32(high - low) * column

    def jitter(self, size: float) -> np.ndarray:
        """Returns triangular numbers between -size and size, float32 [B, 1, 1]."""
        return self.between(-size / 2, size / 2) + self.between(-size / 2, size / 2)

    def chance(self, probability: float) -> np.ndarray:
        """Returns 1 with this probability, else 0; float32 [B, 1, 1]."""
        return (next(self._columns)[:, None, None] < probability).astype(np.float32)


class Painter:
    """A batch of people, and their canvases."""

    def __init__(self, dice: Dice, batch: int):
        self.dice = dice
        self.skin = dice.between(0.38, 0.80)
        # Hair and brows are much darker to a little lighter than the skin.
        self.hair = self.skin * dice.between(0.12, 0.6)
        light = dice.chance(0.15)
        self.hair = self.hair + light * (self.skin * 1.2 + 0.05 - self.hair)
        self.ink = self.skin * 0.30
        self._pose(batch)

    def paint(self, e: dict[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
        """Returns images uint8 [B, S, S] of faces with an expression; everything else is random.

        Args:
          e: parameters of the expression, each float32 [B, 1, 1]; see `synthetic._REST`.
          noise: standard normal, float32 [B, S, S].
        """
        e = {name: value * (1 + self.dice.jitter(0.15)) for name, value in e.items()}
        self._background()
        self._head()
        for feature in (self._lines, self._nose, self._eyes, self._brows, self._beard, self._mouth):
            feature(e)
        self._hair()
        self._glasses()
        self._occlusion()
        return self._develop(noise)

    def _pose(self, batch: int):
        """Sets each pixel's coordinates x, y in the face and u, v in the image."""
        dice = self.dice
        line = (np.arange(SIDE, dtype=np.float32) + 0.5) * (2 / SIDE) - 1
        self.u, self.v = line[None, None, :], line[None, :, None]
        t = dice.jitter(0.14)  # tangent of half the angle, up to 16 degrees
        cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        zoom = dice.between(0.95, 1.16)
        shear, aspect = dice.jitter(0.12), dice.between(0.94, 1.06)
        u, v = self.u - dice.jitter(0.16), self.v - dice.jitter(0.14) - 0.03
        self.x = (cos * u + sin * v) / (zoom * aspect)
        self.y = (cos * v - sin * u) / zoom + shear * self.x
        self.x = self.x + np.zeros((batch, SIDE, SIDE), np.float32)
        self.pixels = SIDE / 2 * zoom  # pixels per unit of length
        # Turning the head moves the features and narrows the far side.
        self.yaw, self.pitch = dice.jitter(1.0), dice.jitter(1.0)

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """Returns the coverage of each pixel, from the distance to the edge of a shape (> 0 inside)."""
        return np.clip(distance * self.pixels + 0.5, 0, 1)

    def put(self, cover: np.ndarray, shade: np.ndarray | float):
        """Paints a shade on the canvas."""
        self.canvas += cover * (shade - self.canvas)

    def _background(self):
        dice = self.dice
        self.canvas = dice.between(0.1, 0.9) + dice.jitter(0.4) * self.u + dice.jitter(0.4) * self.v
        self.canvas = self.canvas + np.zeros_like(self.x)
        # Shoulders and neck; long hair covers them.
        clothes, width = dice.between(0.1, 0.9), dice.between(0.7, 1.0)
        x, y = self.x, self.y
        self.put(self.cover(y - 1.0 - 0.35 * x * x / width), clothes)
        self.put(self.cover(np.minimum(0.42 * width - abs(x), y)), self.skin * 0.8)
        self.head_width, self.head_height = dice.between(0.66, 0.80), dice.between(0.88, 0.98)
        self.jaw = dice.between(0.0, 0.6)
        long, length = dice.chance(0.35), dice.between(0.4, 1.2)
        back = 1 - (x / (self.head_width + 0.16)) ** 2
        back -= np.maximum(-y / (self.head_height + 0.12), y / (length + 0.6)) ** 2
        self.put(long * self.cover(0.5 * back), self.hair * 0.85)

    def _head(self):
        dice, x, y = self.dice, self.x, self.y
        tall = (y / self.head_height) ** 2
        self.inside = 1 - (x / self.head_width) ** 2 - tall * (1 - self.jaw + self.jaw * tall)
        ears = 0.13 - np.sqrt((abs(x) - self.head_width) ** 2 + 0.4 * (y + 0.03) ** 2)
        self.put(self.cover(ears), self.skin * 0.85)
        # The side away from the light is darker, and the rim darker than the middle.
        side, round_ = dice.jitter(0.3), dice.between(0.1, 0.35)
        self.light = side
        shade = self.skin * (1.04 + side * x - round_ * (1 - self.inside) ** 2)
        self.put(self.cover(0.4 * self.inside), shade)
        # Coordinates of the features: shifted and foreshortened on a turned head.
        self.fx = x - 0.14 * self.yaw
        self.fx = self.fx * (1 + 0.18 * self.yaw * self.fx)
        self.fy = y - 0.07 * self.pitch

    def _lines(self, e):
        """Paints wrinkles and folds, thin and a little darker than the skin."""
        x, y = abs(self.fx), self.fy
        ink = self.skin * 0.55
        level = _distance_from_three(y + 0.62, 0.085)
        self.put(0.6 * e["forehead"] * self.cover(np.minimum(0.006 - level, 0.26 - x) + 0.01), ink)
        frown = np.minimum(0.016 - abs(x - 0.055 - 0.1 * (y + 0.3)), 0.10 - abs(y + 0.33))
        self.put(0.8 * e["frown"] * self.cover(frown), ink)
        level = _distance_from_three(y + 0.10 + 0.5 * x, 0.075)
        self.put(0.9 * e["wrinkle"] * self.cover(np.minimum(0.008 - level, 0.12 - x) + 0.01), ink)
        fold = x - 0.17 - 0.32 * (y - 0.20) + 0.3 * (y - 0.35) ** 2
        fold = np.minimum(0.016 - 0.9 * abs(fold), 0.17 - abs(y - 0.35))
        self.put(0.5 * e["folds"] * self.cover(fold), ink)
        crease = y - 0.03 - 0.6 * (x - 0.34) ** 2
        crease = np.minimum(0.014 - abs(crease), 0.16 - abs(x - 0.36))
        self.put(0.7 * e["cheeks"] * self.cover(crease), ink)

    def _nose(self, e):
        dice, x, y = self.dice, self.fx, self.fy
        length, width = dice.between(0.18, 0.27) - e["nose_up"], dice.between(0.09, 0.14)
        ink = self.skin * 0.55
        side = np.where(self.light > 0, -x, x)  # the shaded side of the bridge
        bridge = side - 0.05 - 0.10 * (y + 0.1)
        bridge = np.minimum(0.022 - abs(bridge), np.minimum(y + 0.2, length - 0.03 - y))
        self.put(0.5 * self.cover(bridge), ink)
        nostril = 0.034 - np.sqrt((abs(x) - 0.55 * width) ** 2 + 1.6 * (y - length) ** 2)
        self.put(0.85 * self.cover(nostril), self.ink)
        wing = abs(np.sqrt((abs(x) - width) ** 2 + (y - length + 0.03) ** 2) - 0.045)
        wing = np.minimum(0.012 - wing, abs(x) - width)
        self.put(0.7 * self.cover(wing), ink)

    def _eyes(self, e):
        dice = self.dice
        apart, width = dice.between(0.30, 0.36), dice.between(0.145, 0.185)
        x, y = abs(self.fx) - apart, self.fy + 0.14
        t = x / width
        almond = np.maximum(1 - t * t, -1)
        # A slanted upper lid may cross the lower one, but the opening stays non-negative.
        upper = y + e["eye_top"] * almond + e["lid_slope"] * x * 0.3
        lower = e["eye_bottom"] * almond - y
        socket = np.minimum(np.minimum(upper, lower) + 0.10, 0.5 * almond)
        self.put(0.35 * self.cover(0.5 * socket), self.skin * 0.75)
        opening = np.minimum(upper, lower)
        opening = np.minimum(opening, 0.5 * (1 - abs(t)) * width + 0.01)
        cover = self.cover(opening)
        self.put(cover, np.minimum(self.skin * 1.0 + 0.25, 0.95))
        gaze = np.sign(self.fx) * (dice.jitter(0.05) + 0.03 * self.yaw)
        dx, dy = x - gaze, y - e["gaze_y"] + 0.012
        radius = np.sqrt(dx * dx + dy * dy)
        iris = dice.between(0.1, 0.45) * self.skin
        self.put(cover * self.cover(0.078 - radius), iris)
        self.put(cover * self.cover(0.036 - radius), 0.03)
        glint = 0.022 - np.sqrt((dx - 0.03 * np.sign(self.fx)) ** 2 + (dy + 0.03) ** 2)
        self.put(cover * self.cover(glint), 0.95)
        lash = np.minimum(dice.between(0.016, 0.03) - abs(upper), 0.02 + (1 - abs(t)) * width)
        self.put(0.95 * self.cover(lash), self.ink * 0.6)
        rim = np.minimum(0.008 - abs(lower), (1 - abs(t)) * width)
        self.put(0.6 * self.cover(rim), self.ink)
        tear = np.minimum(0.022 - abs(x - 0.02), np.minimum(-lower - 0.01, 0.30 - y))
        self.put(0.9 * e["tear"] * self.cover(tear), np.minimum(self.skin + 0.3, 1))

    def _brows(self, e):
        dice = self.dice
        half, thick = dice.between(0.17, 0.22), dice.between(0.03, 0.055)
        x, y = abs(self.fx) - e["brow_gap"], self.fy - e["brow_y"] - dice.jitter(0.03)
        t = x / half
        middle = -e["brow_slope"] * x - e["brow_arch"] * (1 - t * t)
        taper = thick * (1.15 - 0.4 * t)
        brow = np.minimum(taper - abs(y - middle), 1.5 * (1 - abs(t)) * half)
        self.put(dice.between(0.75, 1) * self.cover(brow), np.minimum(self.hair, self.skin * 0.62))

    def _beard(self, e):
        dice, x, y = self.dice, self.fx, self.fy
        beard = dice.chance(0.15) * dice.between(0.3, 0.7)
        edge = y - dice.between(0.30, 0.34) - 0.25 * abs(abs(x) - 0.2) + 1.1 * np.maximum(abs(x) - 0.36, 0)
        self.put(beard * self.cover(0.3 * np.minimum(0.7 * self.inside, edge)), 0.3 * self.skin)

    def _mouth(self, e):
        dice = self.dice
        width = e["mouth_width"] * dice.between(0.9, 1.1)
        x = self.fx
        t2 = np.minimum((x / width) ** 2, 4)
        y = self.fy - e["mouth_y"] - dice.jitter(0.03) - dice.jitter(0.03) * x
        y = y + e["mouth_curve"] * (t2 - 0.4) + e["mouth_skew"] * x
        full = 1 - t2 * (1 - e["square"] + e["square"] * t2)
        ends = (1 - np.sqrt(t2)) * width
        top, bottom = e["open_top"] * full, e["open_bottom"] * full
        lip = e["lip"] * dice.between(0.8, 1.25) * np.maximum(1 - t2, -1)
        lips = np.minimum(y + top + 0.85 * lip, bottom + 1.2 * lip - y)
        tone = self.skin * dice.between(0.55, 0.82)
        self.put(self.cover(np.minimum(lips, ends + 0.02)), tone)
        opening = np.minimum(y + top, bottom - y)
        gap = self.cover(np.minimum(opening, ends + 0.01))
        self.put(gap, self.ink * 0.35)
        height = (e["open_top"] + e["open_bottom"]) * e["teeth"]
        teeth = np.minimum(height - (y + top), y + top + 0.01)
        self.put(gap * self.cover(teeth) * (e["teeth"] > 0.1), dice.between(0.8, 0.97))
        tongue = 0.12 - np.sqrt(x * x + 0.7 * (y - e["open_bottom"] - 0.02) ** 2)
        self.put(np.clip(e["tongue"], 0, 1) * self.cover(tongue), self.skin * 0.78)
        # Closed lips have a dark seam, which fades as they part.
        seam = np.minimum(0.022 - abs(y + top), ends + 0.015)
        parted = np.clip((e["open_top"] + e["open_bottom"]) / 0.1, 0, 1)
        self.put((0.9 - 0.6 * parted) * self.cover(seam), self.ink * 0.8)
        chin = np.minimum(0.02 - abs(y - bottom - 1.2 * e["lip"] - 0.07), 0.4 * width - abs(x))
        self.put(0.4 * self.cover(chin), self.skin * 0.6)

    def _hair(self):
        dice, x, y = self.dice, self.x, self.y
        bald = dice.chance(0.12)
        line = dice.between(-0.72, -0.56) + dice.between(-0.2, 0.9) * x * x + dice.jitter(0.5) * x
        cap = np.minimum(0.4 * self.inside + dice.between(0.03, 0.10), line - y)
        # Locks: a triangle wave across the hair, also at its edge.
        wave = abs((x * dice.between(4, 9) + y * dice.jitter(6)) % 2 - 1) - 0.5
        cap = cap + dice.between(0, 0.12) * wave
        self.put((1 - bald) * self.cover(cap), self.hair * (1 + dice.between(0, 0.6) * wave) + 0.02)

    def _glasses(self):
        dice, y = self.dice, self.fy + 0.12
        worn = dice.chance(0.18)
        size, round_ = dice.between(0.2, 0.25), dice.between(0.6, 1.0)
        x = abs(self.fx) - 0.33
        rim = abs(np.sqrt(x * x * round_ + y * y * 1.3) - size * 0.9)
        bridge = np.minimum(0.014 - abs(y + 0.03), 0.14 - abs(self.fx))
        frame = np.maximum(dice.between(0.012, 0.026) - rim, bridge)
        self.put(worn * 0.9 * self.cover(frame), dice.between(0.05, 0.35))

    def _occlusion(self):
        """Paints a strand of hair across the face, or a hand at its edge."""
        dice, x, y = self.dice, self.x, self.y
        strand = dice.chance(0.12)
        path = x - dice.jitter(0.9) - dice.jitter(0.8) * y - dice.jitter(0.8) * y * y
        path = np.minimum(dice.between(0.02, 0.06) - 0.8 * abs(path), dice.between(-0.2, 0.4) - y)
        self.put(strand * self.cover(path), self.hair)
        hand, side = dice.chance(0.10), 1 - 2 * dice.chance(0.5)
        x = side * x - dice.between(0.55, 0.75)
        y = y - dice.between(0.1, 0.75)
        slant = y + 0.3 * x
        finger = abs((slant / 0.15) % 1 - 0.5) * 0.15  # distance from the middle of the nearest finger
        reach = np.minimum(0.3 - abs(slant), x + 0.25 - 0.4 * slant * slant)
        self.put(hand * self.cover(reach), self.skin * (1.0 - 3.5 * np.maximum(finger - 0.045, 0)))

    def _develop(self, noise: np.ndarray) -> np.ndarray:
        """Applies lighting, blur, and noise."""
        dice, image = self.dice, self.canvas
        image *= 1 + dice.jitter(0.45) * self.u + dice.jitter(0.35) * self.v
        image = _blur(image, 0.22 * dice.between(0, 1) * dice.between(0, 1))
        image = (image - 0.5) * dice.between(0.8, 1.3) + 0.5 + dice.jitter(0.2)
        image += noise * (0.004 + 0.03 * dice.between(0, 1) ** 2)
        return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def _distance_from_three(place: np.ndarray, spacing: float) -> np.ndarray:
    """Returns the distance from the nearest of three lines."""
    return abs(place / spacing - np.rint(np.clip(place / spacing, -1, 1))) * spacing


def _blur(image: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Mixes each pixel with its neighbors, whose weight is `side`, twice along each axis."""
    for _ in range(2):
        padded = np.pad(image, ((0, 0), (1, 1), (0, 0)), "edge")
        image = image + side * (padded[:, :-2] + padded[:, 2:] - 2 * image)
        padded = np.pad(image, ((0, 0), (0, 0), (1, 1)), "edge")
        image = image + side * (padded[:, :, :-2] + padded[:, :, 2:] - 2 * image)
    return image
