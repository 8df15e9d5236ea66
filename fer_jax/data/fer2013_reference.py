"""Statistics of the official FER2013 dataset, to detect altered copies."""

import re
from pathlib import Path
from typing import Any

from fer_jax.data.emotions import EMOTIONS

# Goodfellow et al., "Challenges in Representation Learning" (2013): Training, PublicTest, PrivateTest.
COUNTS = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "validation": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}
SHAPE = "48 x 48 gray"
# `PIXELS`, rounded: the default normalization of networks.
MEAN, STD = 0.5077, 0.2550
# Over the Training pixels, in [0, 1]; sharpness is the mean absolute difference of horizontal neighbors.
PIXELS = {"mean": 0.50774, "std": 0.25501, "sharpness": 0.05380}
# JPEG compression at quality 95 changes them by less: mean 4e-6, std 7e-5, sharpness 1e-3.
TOLERANCE = {"mean": 0.002, "std": 0.002, "sharpness": 0.004}
MEANING = {
    "mean": "brightened or darkened?",
    "std": "contrast changed?",
    "sharpness": "blurred, sharpened or rescaled?",
}

FER_KINDS = ("fer2013_csv", "icml_csv", "kaggle_folders")
_FER_WORD = re.compile(r"(?<![a-z])fer(?![a-z])", re.IGNORECASE)


def compare(report: dict[str, Any]) -> dict[str, Any]:
    """Compares the report of an audit with the official data.

    Only sources that appear to be FER2013 are compared: its CSV files, Kaggle's file names, or a folder with
    the same number of training images or with the word "fer" in its name (fer2013, my_FER).

    Returns:
      {"compared": bool, "differences": list of sentences}.
    """
    sizes = {split: found["count"] for split, found in report["splits"].items()}
    named = report["kind"] in FER_KINDS or _FER_WORD.search(Path(report["source"]).name)
    if not named and sizes.get("train") != sum(COUNTS["train"]):
        return {"compared": False, "differences": []}
    differences = []
    for split, expected in COUNTS.items():
        if split not in sizes:
            differences.append(f"FER2013 has {sum(expected):,} {split} images, but this source has none")
            continue
        found = report["splits"][split]["class_counts"]
        odd = [f"{n} {found[n]:,} ({e:,})" for n, e in zip(EMOTIONS, expected, strict=True) if found[n] != e]
        if odd:
            differences.append(
                f"{split} has {sizes[split]:,} images instead of FER2013's {sum(expected):,}; differences "
                f"(official counts in parentheses): {', '.join(odd)}"
            )
    if set(report["shapes"]) != {SHAPE}:
        shapes = ", ".join(list(report["shapes"])[:3])
        differences.append(f"FER2013's images are {SHAPE}, but these are {shapes}: resized or recolored?")
    statistics = report["pixels"]["splits"].get("train", {})
    for name, found in statistics.items():
        if abs(found - PIXELS[name]) > TOLERANCE[name]:
            differences.append(
                f"the {name} of the train pixels is {found:.4f}, FER2013's is {PIXELS[name]:.4f}: "
                f"{MEANING[name]}"
            )
    return {"compared": True, "differences": differences}
