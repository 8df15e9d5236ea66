"""The app: pictures, snapshots and videos in, faces and their emotions out, in a browser.

    fer-jax app
    fer-jax app -- --models runs     # and all .safetensors below runs

Pictures stay in the server's memory, in the visitor's own session, until they are replaced or the page is
closed. Nothing is written to disk and nothing is sent elsewhere.
"""

import sys

import streamlit as st
from PIL import Image

from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import synthetic
from fer_jax.inference.app import analysis, model_card, model_choice, uploads, video_view, views, webcam
from fer_jax.inference.app.uploads import plain
from fer_jax.inference.predictor import Predictor

UPLOAD, CAMERA, SAMPLES, VIDEO, LIVE = "Pictures", "Camera", "Samples", "Video", "Live"
_ICONS = {
    UPLOAD: ":material/upload:",
    CAMERA: ":material/photo_camera:",
    SAMPLES: ":material/face:",
    VIDEO: ":material/movie:",
    LIVE: ":material/videocam:",
}


def main() -> None:
    st.set_page_config("Facial emotion recognition", icon(), layout="wide")
    st.title("Facial emotion recognition", anchor=False)
    st.markdown(model_card.NOT_FOR)
    predictor, key = choose_predictor()
    st.caption(plain(model_card.headline(predictor.classifier.trained)))
    source = st.segmented_control(
        "Look at",
        list(_ICONS),
        default=UPLOAD,
        required=True,
        key="source",
        format_func=lambda name: f"{_ICONS[name]} {name}",
        width="stretch",
    )
    show = {UPLOAD: pictures, CAMERA: camera, SAMPLES: samples, VIDEO: video_view.show, LIVE: live}
    show[source](predictor, key)
    st.divider()
    model_card.show(predictor.classifier.trained)
    st.caption(
        "What you send stays in this server's memory, in your session alone, until you replace it or close "
        "the page. It is not stored, not passed on and not used for training."
    )


@st.cache_data
def icon() -> Image.Image:
    """A drawn happy face. Streamlit's own icons would be fetched from elsewhere."""
    counts = [int(name == "happy") for name in EMOTIONS]
    return Image.fromarray(synthetic.generate(counts, seed=0, split="train")[0][0, ..., 0])


def choose_predictor() -> tuple[Predictor, tuple[str, str]]:
    """The predictor that the visitor wants, and what tells it from others; without one the page ends."""
    try:
        models = model_choice.find(model_choice.models_folder(sys.argv[1:]))
    except ValueError as error:
        st.error(plain(str(error)))
        st.stop()
    left, right = st.columns(2)
    model = left.selectbox("Model", list(models), key="model")
    names = model_choice.find_detectors()
    detector = right.selectbox("Face finder", names, key="detector", format_func=model_choice.DETECTORS.get)
    classifier, fault = model_choice.load_classifier(models[model])
    if classifier is None:
        st.error(f"The model cannot be used: {plain(fault)}. Choose another one.")
        st.stop()
    finder, fault = model_choice.load_detector(detector)
    if fault:
        st.warning(
            f"**Faces cannot be looked for; each picture is taken for one face.** {plain(fault)}",
            icon=":material/warning:",
        )
    return Predictor(classifier, finder), (models[model], type(finder).__name__)


def pictures(predictor: Predictor, key: tuple[str, str]) -> None:
    """Pictures from the visitor's files."""
    files = st.file_uploader(
        f"Pictures, up to {uploads.MAX_FILES} of {uploads.MEGABYTES} MB each",
        list(uploads.PICTURE_ENDINGS),
        accept_multiple_files=True,
        max_upload_size=uploads.MEGABYTES,
        key="pictures",
    )
    if len(files) > uploads.MAX_FILES:
        st.warning(f"These are {len(files)} pictures; the first {uploads.MAX_FILES} are looked at.")
    look_at(files[: uploads.MAX_FILES], predictor, key)


def camera(predictor: Predictor, key: tuple[str, str]) -> None:
    """A snapshot. Browsers give a camera to pages from this machine or behind HTTPS only."""
    st.caption(
        "Your browser asks whether it may use the camera. If no picture comes: allow it in the browser, and "
        "open this page by https or on this machine (localhost)."
    )
    snapshot = st.camera_input("Snapshot", key="snapshot")
    look_at([snapshot] if snapshot else [], predictor, key, "Snapshot")


def look_at(files: list, predictor: Predictor, key: tuple[str, str], name: str | None = None) -> None:
    """Analyses what was uploaded, and shows it, by another name where that of the file says nothing."""
    wanted = {
        (file.file_id, *key): lambda file=file: analysis.analyse(
            name or file.name, lambda: uploads.read_upload(file.getvalue(), name or file.name), predictor
        )
        for file in files
    }
    with st.spinner("Looking for faces ..."):
        found = analysis.remember(st.session_state, wanted)
    views.show_pictures(found, predictor)


def samples(predictor: Predictor, key: tuple[str, str]) -> None:
    """Built-in drawn faces: no picture of anyone is needed to see how the app works."""
    st.markdown(
        "**Drawn faces**, made by a program: each is drawn to show the emotion in its name. Models trained "
        "on photographs often get drawings wrong."
    )
    if st.button("Draw others", icon=":material/refresh:"):
        st.session_state["seed"] = st.session_state.get("seed", 0) + 1
    seed = st.session_state.get("seed", 0)
    images, labels = synthetic.generate(1, seed=seed, split="test")
    whole = Predictor(predictor.classifier, model_choice.load_detector(model_choice.WHOLE)[0])
    wanted = {
        (seed, label, *key): lambda image=image, label=label: analysis.analyse(
            f"drawn to look {EMOTIONS[label]}", lambda: image[..., 0], whole
        )
        for image, label in zip(images, labels, strict=True)
    }
    views.show_pictures(analysis.remember(st.session_state, wanted), whole)


def live(predictor: Predictor, key: tuple[str, str]) -> None:
    """The webcam as it films, with a way out where that does not work."""
    if not webcam.show(predictor):
        st.button("Take a snapshot instead", icon=":material/photo_camera:", on_click=_go_to_camera)


def _go_to_camera() -> None:
    st.session_state["source"] = CAMERA


main()
