"""The Streamlit app: recognizes emotions in images, snapshots, and videos.

    fer-jax app
    fer-jax app -- --models runs     # also offers all .safetensors files below runs

Images stay in the memory of the server, in the visitor's session, until they are replaced or one minute after
the page is closed. Nothing is written to disk or sent elsewhere.
"""

import sys
from collections.abc import Sequence

import numpy as np
import streamlit as st
from PIL import Image

from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import synthetic
from fer_jax.inference.app import (
    analysis,
    closing,
    model_card,
    model_choice,
    uploads,
    video_view,
    views,
    webcam,
)
from fer_jax.inference.app.uploads import plain
from fer_jax.inference.media.inputs import SAMPLE
from fer_jax.inference.predictor import Predictor

Key = tuple[str, str]  # identifies a predictor
UPLOAD, CAMERA, SAMPLES, VIDEO, LIVE = "Images", "Camera", "Samples", "Video", "Live"
_ICONS = {UPLOAD: "upload", CAMERA: "photo_camera", SAMPLES: "face", VIDEO: "movie", LIVE: "videocam"}


def main() -> None:
    st.set_page_config("Facial emotion recognition", icon(), layout="wide")
    closing.end_with_the_page()
    st.title("Facial emotion recognition", anchor=False)
    st.markdown(model_card.NOT_FOR)
    predictor, key = choose_predictor()
    st.caption(plain(model_card.headline(predictor.classifier.trained)))
    source = st.segmented_control(
        "Source",
        [name for name in _ICONS if name != LIVE or webcam.is_installed()],
        default=UPLOAD,
        required=True,
        key="source",
        format_func=lambda name: f":material/{_ICONS[name]}: {name}",
        width="stretch",
    )
    show = {UPLOAD: upload, CAMERA: camera, SAMPLES: samples, VIDEO: video_view.show, LIVE: live}
    show[source](predictor, key)
    st.divider()
    model_card.show(predictor.classifier.trained)
    st.caption(
        "Your images stay in the memory of this server, in your session only, until you replace them or one "
        "minute after you close the page. They are not stored, shared, or used for training."
    )


@st.cache_data
def icon() -> Image.Image:
    """Returns a synthetic happy face, because Streamlit would download its own icons."""
    counts = [int(name == "happy") for name in EMOTIONS]
    return Image.fromarray(synthetic.generate(counts, seed=0, split="train")[0][0, ..., 0])


def choose_predictor() -> tuple[Predictor, Key]:
    """Returns the predictor that the visitor chose; stops the page if there is none."""
    try:
        models = model_choice.find(model_choice.models_folder(sys.argv[1:]))
    except ValueError as error:
        st.error(plain(str(error)))
        st.stop()
    left, right = st.columns(2)
    model = left.selectbox("Model", list(models), key="model")
    names = model_choice.find_detectors()
    name = right.selectbox(
        "Face detector", names, key="detector", format_func=model_choice.DETECTORS.__getitem__
    )
    classifier, fault = model_choice.load_classifier(models[model])
    if classifier is None:
        st.error(f"This model cannot be used: {plain(fault)}. Choose another one.")
        st.stop()
    detector, fault = model_choice.load_detector(name)
    if fault:
        text = f"**Faces cannot be detected: each image is treated as one face.** {plain(fault)}"
        st.warning(text, icon=":material/warning:")
    return Predictor(classifier, detector), (models[model], type(detector).__name__)


def upload(predictor: Predictor, key: Key) -> None:
    """Shows uploaded images."""
    files = st.file_uploader(
        f"Images, up to {uploads.MAX_FILES} of {uploads.MEGABYTES} MB each",
        list(uploads.IMAGE_ENDINGS),
        accept_multiple_files=True,
        max_upload_size=uploads.MEGABYTES,
        key="images",
    )
    if len(files) > uploads.MAX_FILES:
        st.warning(f"Only the first {uploads.MAX_FILES} of {len(files)} images are analyzed.")
    if not files and not st.session_state.get("example"):
        offer_examples()
    elif not files:
        show_images(
            {(SAMPLE.name, *key): ("Grace Hopper, by the United States Navy", SAMPLE.read_bytes())}, predictor
        )
    else:
        st.session_state["example"] = False
        show_files(files[: uploads.MAX_FILES], predictor, key)


def offer_examples() -> None:
    """Shows examples."""
    st.caption("Or try an example:")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.image(SAMPLE, width=96)
        st.button("A photograph", icon=":material/image:", on_click=_set, args=("example", True))
        st.image(icon(), width=96)
        st.button("Synthetic faces", icon=":material/face:", on_click=_set, args=("source", SAMPLES))


def camera(predictor: Predictor, key: Key) -> None:
    """Shows a snapshot. Browsers allow cameras only on localhost or over HTTPS."""
    st.caption(
        "Your browser asks for permission to use the camera. If no image appears, allow the camera in the "
        "browser, and open this page over HTTPS or on this machine (localhost)."
    )
    snapshot = st.camera_input("Snapshot", key="snapshot")
    show_files([snapshot] if snapshot else [], predictor, key, "Snapshot")


def show_files(files: Sequence, predictor: Predictor, key: Key, name: str | None = None) -> None:
    """Analyzes and shows uploaded files, under another name if given."""
    images = {(file.file_id, *key): (name or file.name, file.getvalue()) for file in files}
    with st.spinner("Detecting faces ..."):
        show_images(images, predictor)


def show_images(
    images: dict[tuple, tuple[str, bytes | np.ndarray]], predictor: Predictor, detected: bool = True
) -> None:
    """Analyzes images {key: (name, image)} that are not in the session; shows all."""
    wanted = {
        key: lambda name=name, image=image: analysis.analyze(name, image, predictor, detected)
        for key, (name, image) in images.items()
    }
    views.show_images(analysis.remember(st.session_state, wanted), predictor)


def samples(predictor: Predictor, key: Key) -> None:
    """Shows synthetic faces."""
    st.markdown(
        "**Synthetic faces**, each drawn to show the emotion in its name. Models trained on photographs are "
        "often wrong on drawings."
    )
    if st.button("Draw new faces", icon=":material/refresh:"):
        st.session_state["seed"] = st.session_state.get("seed", 0) + 1
    seed = st.session_state.get("seed", 0)
    faces, labels = synthetic.generate(1, seed=seed, split="test")
    drawn = zip(faces[..., 0], labels, strict=True)
    images = {(seed, label, *key): (f"drawn to look {EMOTIONS[label]}", face) for face, label in drawn}
    show_images(images, predictor, detected=False)


def live(predictor: Predictor, key: Key) -> None:
    """Shows the live webcam, or offers a snapshot."""
    if not webcam.show(predictor):
        button = "Take a snapshot instead"
        st.button(button, icon=":material/photo_camera:", on_click=_set, args=("source", CAMERA))


def _set(key: str, value: str | bool) -> None:
    st.session_state[key] = value


main()
