"""The app's model card: training data, accuracy, intended use, and limitations."""

from pathlib import Path
from typing import Any

import streamlit as st

from fer_jax.inference.app.uploads import plain
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.registry import find_weights, name_of

# Official names of FER2013's splits.
_OFFICIAL = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}

NOT_FOR = (
    "Predicts the expression of a face, not what a person feels. For research and teaching; "
    "not for judging people."
)

LIMITS = """
**Intended use.** Research, teaching, and experiments, on images of people who consented.

**Not intended for** decisions about people: hiring, grading, policing, care, insurance, advertising. A face
does not show what someone feels, and in some places emotion recognition at work or in schools is illegal.

**Limitations.**
- *The labels are noisy.* People who label FER2013's faces agree with its labels about two times in
  three, so an accuracy of about 70 % is close to what these labels allow.
- *The faces do not represent any population.* They were collected by web searches for emotion words: many
  are posed, and who they show was not recorded. The accuracy for groups of people is unknown.
- *Classes are confused.* Disgust is rare in the data and often predicted as angry; fear as sad; sad as
  neutral or fear. Happy and surprise are recognized best.
- *Other images are harder:* faces that are turned away, covered, poorly lit, or smaller than about 48
  pixels, and drawings.
- *Confidence* was calibrated on similar data; on other images it may be too high.
"""


def show(trained: LoadedModel) -> None:
    """Shows the model card, collapsed."""
    with st.expander("About this model: accuracy, intended use, limitations", icon=":material/description:"):
        found = describe(trained)
        cells = {"": list(map(plain, found)), "metadata": list(map(plain, found.values()))}
        st.table(cells, border="horizontal")
        st.markdown(LIMITS)
        if name := name_of(trained.source):
            card = Path(find_weights(name)).with_suffix(".md")
            if st.toggle("Full model card", key="whole_card"):
                st.markdown("###" + card.read_text())


def headline(trained: LoadedModel) -> str:
    """Describes the model's accuracy in a sentence."""
    return describe(trained).get("accuracy", "Its accuracy is unknown.")


def describe(trained: LoadedModel) -> dict[str, str]:
    """Describes the model by its metadata."""
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
        found["license"] = "Apache-2.0, as fer_jax; FER2013's images have their own terms"
    return found


def _accuracy(held: dict[str, Any]) -> dict[str, str]:
    scored, selected = held.get("evaluation"), held.get("selection")
    if not scored or scored.get("value") is None:
        return {}
    words = f"{scored['metric']} {scored['value']:.1%} on {_split(held, scored['split'])}"
    if selected and selected["split"] == scored["split"]:
        words += "; the same split selected the weights, so the accuracy is optimistic"
    return {"accuracy": words[0].upper() + words[1:] + "."}


def _split(held: dict[str, Any], split: str) -> str:
    data = held["data"]
    count = data.get("splits", {}).get(split, {}).get("count")
    official = f" ({_OFFICIAL[split]})" if data.get("name") == "fer2013" else ""
    return f"{data.get('name')} {split}{official}" + (f", {count:,} faces" if count else "")
