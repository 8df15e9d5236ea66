"""What the app shows of a picture: its faces, their emotions and where the network saw them."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from fer_jax.evaluation.saliency import saliency_report
from fer_jax.inference.app import analysis
from fer_jax.inference.app.analysis import Analysis
from fer_jax.inference.app.uploads import plain
from fer_jax.inference.output import drawing
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.structures import Face

_MOST_SHOWN = 12  # faces of a picture; the table has them all
_TOP = 3
_CROP_WIDTH = 96  # pixels

GRAD_CAM = (
    "Grad-CAM colours a face by how much each region spoke for the answer: red most, blue least. It shows "
    "where the network looked, coarsely; it does not show why, nor that the answer is right. On a face that "
    "stays dark no region stood out."
)


def show_pictures(found: Sequence[Analysis], predictor: Predictor) -> None:
    """Pictures with their faces, one below the other, and the table of all."""
    explained = False
    if any(one.faces for one in found):
        explained = st.toggle("Show where the network looked (Grad-CAM)", key="grad_cam")
        if explained:
            st.caption(GRAD_CAM)
    for number, one in enumerate(found):
        with st.container(border=True):
            _show_picture(one, predictor, explained, f"picture_{number}")
    table = [row for one in found for row in analysis.rows(one)]
    show_table(table, predictor.classifier.emotions, "faces.csv")


def show_table(table: Sequence[Mapping[str, Any]], emotions: Sequence[str], file_name: str) -> None:
    """A table, and a button that saves it."""
    if not table:
        return
    with st.expander("Table of all faces"):
        st.dataframe(table, hide_index=True)
    st.download_button(
        "Download the table (CSV)",
        analysis.to_csv(table, emotions),
        file_name,
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def _show_picture(one: Analysis, predictor: Predictor, explained: bool, key: str) -> None:
    st.markdown(f"**{plain(one.name)}**")
    if one.error:
        st.error(plain(one.error), icon=":material/error:")
        return
    left, right = st.columns([3, 2], gap="medium")
    said = ", ".join(map(_say, one.faces[:_MOST_SHOWN]))
    left.image(one.image, width="stretch", alt=f"{one.name}: {_count(one.faces)}. {said}")
    with right:
        if not one.faces:
            st.info(
                "**No face found.** Try a picture in which the face is larger, lit from the front and turned "
                'to the camera. Where the picture *is* one face, choose "each picture is one face" above.',
                icon=":material/person_off:",
            )
            return
        maps = _explain(one, predictor) if explained else None
        several = len(one.faces) > 1
        st.markdown(f"{_count(one.faces)}" + (", the largest first:" if several else ":"))
        _warn(one.faces)
        for i, face in enumerate(one.faces[:_MOST_SHOWN]):
            crop = one.crops[i] if maps is None else saliency_report.overlay(one.crops[i], maps[i])
            _show_face(face, crop, i + 1 if several else None)
        if len(one.faces) > _MOST_SHOWN:
            st.caption(f"and {len(one.faces) - _MOST_SHOWN} smaller ones, in the table below")


def _warn(faces: Sequence[Face]) -> None:
    """Says of which faces the model is unsure."""
    unsure = [number for number, face in enumerate(faces, 1) if face.unsure]
    if unsure:
        which = f" about {', '.join(map(str, unsure))}" if len(faces) > 1 else ""
        st.warning(
            f"The model is **unsure**{which}: by its own estimate it is more likely wrong there than right.",
            icon=":material/help:",
        )


def _say(face: Face) -> str:
    return f"{'unsure, perhaps ' * face.unsure}{face.emotion} {100 * face.confidence:.0f} %"


def _count(faces: Sequence[Face]) -> str:
    return f"{len(faces)} face{'s' * (len(faces) != 1)} found" if faces else "no face found"


def _explain(one: Analysis, predictor: Predictor) -> Any:
    """The maps of the faces that are shown, worked out once for each picture."""
    kept = st.session_state.setdefault("maps", {})
    # Maps go with their analysis, which is kept beside them, so that no other gets its id.
    alive = {
        id(known): kept[id(known)] for known in st.session_state["analyses"].values() if id(known) in kept
    }
    if id(one) not in alive:
        with st.spinner("Looking where the network looks ..."):
            alive[id(one)] = one, predictor.explain(one.crops[:_MOST_SHOWN])
    st.session_state["maps"] = alive
    return alive[id(one)][1]


def _show_face(face: Face, crop: Any, number: int | None) -> None:
    called = f"{number}: " if number else ""
    with st.container(horizontal=True, vertical_alignment="top", gap="small"):
        shown = crop[..., 0] if crop.shape[-1] == 1 else crop
        alt = f"The face as the network saw it, {face.emotion}"
        st.image(shown, width=_CROP_WIDTH, alt=alt)
        with st.container(gap="xsmall"):
            if face.unsure:
                st.markdown(f"**{called}Unsure** – perhaps {face.emotion}")
            else:
                st.markdown(f"**{called}{face.emotion}**")
            st.caption(f"confidence {100 * face.confidence:.0f} %")
            bars(face.top(_TOP))
    with st.expander(f"All {len(face.emotions)} emotions"):
        bars(face.top(len(face.emotions)))


def bars(shares: Sequence[tuple[str, float]]) -> None:
    """Emotions and their probabilities as bars, with the figures in words."""
    st.html("".join(_bar(emotion, share) for emotion, share in shares))


def _bar(emotion: str, share: float) -> str:
    width, colour = f"{100 * share:.1f}%", drawing.COLOURS[emotion]
    return (
        '<div style="display:flex;align-items:center;gap:.5rem;font-size:.875rem;line-height:1.6">'
        f'<span style="width:4.5rem;flex:none">{emotion}</span>'
        '<span style="flex:1;min-width:2rem;height:.7rem;border-radius:.35rem;background:#80808040">'
        f'<span style="display:block;height:100%;width:{width};border-radius:.35rem;background:{colour}">'
        "</span></span>"
        f'<span style="width:3rem;flex:none;text-align:right">{100 * share:.1f} %</span></div>'
    )
