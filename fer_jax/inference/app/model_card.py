"""The app's model card: training data, accuracy, intended use and limits of a model."""

from pathlib import Path
from typing import Any

import streamlit as st

from fer_jax.inference.app.uploads import plain
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import find_weights, name_of

# What FER2013's splits are called elsewhere.
_OFFICIAL = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}

NOT_FOR = (
    "A guess at how a face looks, not at what a person feels. For research and teaching; "
    "not for judging people."
)

LIMITS = """
**Intended use.** Research, teaching, experiments; on images of people who consented.

**What it is not for.** Decisions about people: hiring, grading, policing, care, insurance, advertising. A
face does not tell what someone feels, and in some places the law forbids reading emotions at work or in
schools.

**Where it fails.**
- *The labels are noisy.* People who label FER2013's faces agree with its labels about two times in
  three, so an accuracy near 70 % is close to what these labels allow.
- *The faces are no sample of any population.* They came from web searches for emotion words: many are
  posed, and who is in them was not recorded. How accurate it is for a group of people is unknown.
- *Confused classes.* Disgust is rare in the data and often taken for anger; fear is taken for sadness,
  sadness for neutral or fear. Happy and surprise are recognized best.
- *Images unlike the data.* Faces turned away, covered, in poor light or smaller than about 48 pixels;
  drawings.
- *Confidence* was adjusted (calibrated) on the same kind of data; on other images it may be too high.
"""


def show(trained: LoadedModel) -> None:
    """Shows the model card, closed until it is opened."""
    with st.expander("About this model: accuracy, intended use, limits", icon=":material/description:"):
        st.table(_cells(describe(trained)), border="horizontal")
        st.markdown(LIMITS)
        if name := name_of(trained.source):
            card = Path(find_weights(name)).with_suffix(".md")
            if st.toggle("Full model card", key="whole_card"):
                st.markdown("###" + card.read_text())


def headline(trained: LoadedModel) -> str:
    """Returns a sentence about the model's accuracy."""
    return describe(trained).get("accuracy", "Its accuracy is not known: its file does not say.")


def describe(trained: LoadedModel) -> dict[str, str]:
    """Returns what the model's file says about it, in words."""
    held, parameters = trained.metadata, f"{trained.parameters / 1e6:.1f} million parameters"
    found = {"network": f"{held['model']['name']}, {parameters}, faces of {trained.input_shape[0]} pixels"}
    found["classes"] = ", ".join(held["emotions"])
    if "train" in held["data"].get("splits", {}):
        found["trained on"] = _split(held, "train")
    if start := held.get("pretrained"):
        origin = ", ".join(filter(None, [start.get("ecosystem"), start.get("licence")]))
        found["initialized from"] = f"ImageNet weights ({origin})"
    found |= _accuracy(held)
    if calibration := held.get("calibration"):
        where = _split(held, calibration["split"])
        found["calibration"] = f"temperature {calibration['temperature']:.2f}, fitted on {where}"
    if name_of(trained.source):
        found["license"] = "Apache-2.0, as fer_jax; FER2013's images have terms of their own"
    return found


def _accuracy(held: dict[str, Any]) -> dict[str, str]:
    scored, selected = held.get("evaluation"), held.get("selection")
    if not scored or scored.get("value") is None:
        return {}
    words = f"{scored['metric']} {scored['value']:.1%} on {_split(held, scored['split'])}"
    if selected and selected["split"] == scored["split"]:
        words += "; the same split selected the weights, so the figure is optimistic"
    return {"accuracy": words[0].upper() + words[1:] + "."}


def _split(held: dict[str, Any], split: str) -> str:
    data = held["data"]
    count = data.get("splits", {}).get(split, {}).get("count")
    official = f" ({_OFFICIAL[split]})" if data.get("name") == "fer2013" else ""
    return f"{data.get('name')} {split}{official}" + (f", {count:,} faces" if count else "")


def _cells(found: dict[str, str]) -> dict[str, list[str]]:
    return {"": [plain(key) for key in found], "what the file says": [plain(text) for text in found.values()]}
