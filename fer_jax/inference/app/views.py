"""Shows images in the app: faces, emotions, and Grad-CAM."""

from collections.abc import Sequence

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from fer_jax.inference import drawing
from fer_jax.inference.app.analysis import Analysis
from fer_jax.inference.app.uploads import plain
from fer_jax.inference.output import table
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import Face

_MAX_SHOWN = 12  # faces per image; the table has all
_TOP = 3
_CROP_WIDTH = 96  # pixels

GRAD_CAM = (
    "Grad-CAM colors regions of a face by how much they support the prediction, from blue (least) to red "
    "(most). It shows roughly where the network looked, but not why, or whether the prediction is right. A "
    "dark face has no region that supports it."
)


def show_images(found: Sequence[Analysis], predictor: Predictor) -> None:
    """Shows images with their faces, and a table of all faces.

    Grad-CAM replaces the faces at the end, so that everything else is visible while it is computed.
    """
    explained = False
    if any(one.faces for one in found):
        explained = st.toggle("Show where the network looked (Grad-CAM)", key="grad_cam")
    note = st.container()
    places = []
    for one in found:
        with st.container(border=True):
            places.append(_show_image(one))
    rows = [row for one in found for row in table.rows(one.frame, one.faces)]
    show_table(rows, predictor.classifier.emotions, "faces.csv")
    if explained:
        note.caption(GRAD_CAM)
        for one, own in zip(found, places, strict=True):
            _explain(one, own, predictor, note)


def _explain(
    one: Analysis, places: Sequence[DeltaGenerator], predictor: Predictor, note: DeltaGenerator
) -> None:
    """Replaces the shown faces by their Grad-CAM, computed once."""
    if not places:
        return
    from fer_jax.evaluation.saliency import saliency_report  # imports JAX, which predictions do not need

    crops = one.frame.crops[: len(places)]
    if one.maps is None:
        with note, st.spinner("Computing Grad-CAM ..."):
            one.maps = predictor.classifier.explain(crops)
    for place, face, crop, heat in zip(places, one.faces, crops, one.maps, strict=False):
        _show_crop(place, face, saliency_report.overlay(crop, heat))


def show_table(rows: Sequence[table.Row], emotions: Sequence[str], file_name: str) -> None:
    """Shows the table and a download button."""
    if not rows:
        return
    with st.expander("Table of all faces"):
        st.dataframe(rows, hide_index=True)
    st.download_button(
        "Download the table (CSV)",
        table.to_csv(rows, emotions),
        file_name,
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def _show_image(one: Analysis) -> list[DeltaGenerator]:
    """Shows an image and its largest faces; returns the placeholders of the crops."""
    frame, faces = one.frame, one.faces[:_MAX_SHOWN]
    st.markdown(f"**{plain(frame.source)}**")
    if frame.error:
        st.error(plain(frame.error), icon=":material/error:")
        return []
    count = f"{len(one.faces)} face{'s' * (len(one.faces) != 1)} found" if faces else "no face found"
    answers = [f"{'unsure, perhaps ' * f.unsure}{f.emotion} {100 * f.confidence:.0f} %" for f in faces]
    left, right = st.columns([3, 2], gap="medium")
    left.image(frame.image, width="stretch", alt=f"{frame.source}: {count}. {', '.join(answers)}")
    with right:
        if not faces:
            st.info(
                "**No face found.** Try an image in which the face is larger, well lit, and turned to the "
                'camera. If the entire image is one face, choose "each image is one face" above.',
                icon=":material/person_off:",
            )
            return []
        several = len(one.faces) > 1
        st.markdown(f"{count}, largest first:" if several else f"{count}:")
        unsure = [str(number) for number, face in enumerate(one.faces, 1) if face.unsure]
        if unsure:
            which = f" about {', '.join(unsure)}" if several else ""
            st.warning(
                f"The model is **unsure**{which}: by its own estimate it is more likely wrong than right.",
                icon=":material/help:",
            )
        crops = frame.crops[:_MAX_SHOWN]
        places = [
            _show_face(face, crop, f"{number}: " if several else "")
            for number, (face, crop) in enumerate(zip(faces, crops, strict=True), 1)
        ]
        if len(one.faces) > _MAX_SHOWN:
            st.caption(f"and {len(one.faces) - _MAX_SHOWN} smaller faces in the table below")
    return places


def _show_crop(place: DeltaGenerator, face: Face, crop: np.ndarray) -> None:
    image = crop[..., 0] if crop.shape[-1] == 1 else crop
    place.image(image, width=_CROP_WIDTH, alt=f"The face as the network sees it, {face.emotion}")


def _show_face(face: Face, crop: np.ndarray, prefix: str) -> DeltaGenerator:
    with st.container(horizontal=True, vertical_alignment="top", gap="small"):
        place = st.empty()
        _show_crop(place, face, crop)
        with st.container(gap="xsmall"):
            answer = f"Unsure** – perhaps {face.emotion}" if face.unsure else f"{face.emotion}**"
            st.markdown(f"**{prefix}{answer}")
            st.caption(f"confidence {100 * face.confidence:.0f} %")
            bars(face.top(_TOP))
    with st.expander(f"All {len(face.emotions)} emotions"):
        bars(face.top(len(face.emotions)))
    return place


def bars(shares: Sequence[tuple[str, float]]) -> None:
    """Shows emotions and their probabilities as bars."""
    st.html("".join(_bar(emotion, share) for emotion, share in shares))


def _bar(emotion: str, share: float) -> str:
    width, color = f"{100 * share:.1f}%", drawing.COLORS[emotion]
    return (
        '<div style="display:flex;align-items:center;gap:.5rem;font-size:.875rem;line-height:1.6">'
        f'<span style="width:4.5rem;flex:none">{emotion}</span>'
        '<span style="flex:1;min-width:2rem;height:.7rem;border-radius:.35rem;background:#80808040">'
        f'<span style="display:block;height:100%;width:{width};border-radius:.35rem;background:{color}">'
        "</span></span>"
        f'<span style="width:3rem;flex:none;text-align:right">{100 * share:.1f} %</span></div>'
    )
