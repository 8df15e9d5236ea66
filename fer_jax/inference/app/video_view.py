"""The app's short videos: a few frames a second, the emotions over time."""

import collections
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import altair
import streamlit as st
from PIL import Image

from fer_jax.inference.app import analysis, uploads, views
from fer_jax.inference.app.model_choice import TURN
from fer_jax.inference.app.uploads import UploadError, plain
from fer_jax.inference.detection.detectors import MAX_SIDE_IN_VIDEO
from fer_jax.inference.media import tracking, video
from fer_jax.inference.output import drawing, table
from fer_jax.inference.predictor import Predictor

_EVERY = 0.25  # seconds between the frames that are looked at
_MOST_FRAMES = math.ceil(uploads.VIDEO_SECONDS / _EVERY) + 1
_KEPT = "video"  # in the session


@dataclasses.dataclass(frozen=True, eq=False)
class AnalyzedVideo:
    """What was found in a video.

    Attributes:
      rows: of the table, a row for a face in a frame.
      pictures: {seconds: JPEG of the frame with boxes}.
      fault: why the video ends early, in words for a visitor, or ''.
    """

    rows: list[dict[str, Any]]
    pictures: dict[float, bytes]
    fault: str = ""


def show(predictor: Predictor, key: tuple[str, str]) -> None:
    """A video of the visitor's, and what was found in it."""
    file = st.file_uploader(
        f"A video, up to {uploads.VIDEO_SECONDS} seconds and {uploads.VIDEO_MEGABYTES} MB",
        list(uploads.VIDEO_ENDINGS),
        max_upload_size=uploads.VIDEO_MEGABYTES,
        key="video_file",
    )
    if file is None:
        st.session_state.pop(_KEPT, None)
        return
    known, seen = st.session_state.get(_KEPT, (None, None))
    if known != (file.file_id, *key):
        seen = _look(file.getvalue(), file.name, predictor)
        st.session_state[_KEPT] = ((file.file_id, *key), seen)
    if seen.fault:
        st.error(plain(seen.fault), icon=":material/error:")
    if seen.pictures:
        _show_seen(seen, predictor.classifier.emotions)


def _look(content: bytes, name: str, predictor: Predictor) -> AnalyzedVideo:
    rows, pictures = [], {}
    try:
        file, lasts = uploads.open_video(content, name)
    except UploadError as error:
        return AnalyzedVideo([], {}, str(error))
    bar = st.progress(0.0, "Looking for faces ...")
    tracker, fault = tracking.Tracker(), ""
    frames = video.read_frames(file, _EVERY)
    try:
        while True:
            with TURN:
                frame = next(frames, None)
                if frame is None:
                    break
                if len(pictures) >= _MOST_FRAMES or frame.seconds > uploads.VIDEO_SECONDS:
                    fault = f"{name} lasts more than {uploads.VIDEO_SECONDS} seconds: the rest was left out"
                    break
                found, picture = _look_at(frame, name, predictor, tracker)
            rows += found
            pictures[round(frame.seconds, 2)] = picture
            done = frame.seconds / lasts if lasts else len(pictures) / _MOST_FRAMES
            bar.progress(min(done, 1.0), f"{frame.seconds:.1f} seconds seen")
    except video.VideoError:
        fault = f"{name} is damaged or cut off" + ("; this is what could be seen" if pictures else "")
    bar.empty()
    return AnalyzedVideo(rows, pictures, fault)


def _look_at(
    frame: video.Frame, name: str, predictor: Predictor, tracker: tracking.Tracker
) -> tuple[list[dict[str, Any]], bytes]:
    """The rows of a frame, and its picture."""
    found = predictor.detector.detect(frame.image, MAX_SIDE_IN_VIDEO)
    faces = predictor.classify(predictor.crop(frame.image, found), found)
    tracks = tracker.update([f.box for f in faces], [f.probabilities for f in faces], frame.seconds)
    numbers = [track.number for track in tracks]
    place = {"source": name, "seconds": round(frame.seconds, 2)}
    file = io.BytesIO()
    Image.fromarray(analysis.draw(frame.image, faces, numbers)).save(file, "JPEG", quality=80)
    return table.face_rows(place, faces, tracks), file.getvalue()


def _show_seen(seen: AnalyzedVideo, emotions: Sequence[str]) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        _show_emotions(seen, emotions)
    with right:
        times = list(seen.pictures)
        when = st.select_slider("Second", times, key="second") if len(times) > 1 else times[0]
        st.image(seen.pictures[when], width="stretch", alt=f"The frame at {when} seconds")
    views.show_table(seen.rows, emotions, "video.csv")


def _show_emotions(seen: AnalyzedVideo, emotions: Sequence[str]) -> None:
    frames = collections.Counter(row["track"] for row in seen.rows if "track" in row)
    if not frames:
        st.info(f"**No face found** in {len(seen.pictures)} frames.", icon=":material/person_off:")
        return
    order = [track for track, _ in frames.most_common()]
    chosen = st.selectbox(
        "Face, by its number in the picture",
        order,
        format_func=lambda track: f"{track}, seen in {frames[track]} of {len(seen.pictures)} frames",
    )
    faces = [row for row in seen.rows if row.get("track") == chosen]
    st.altair_chart(chart(faces, emotions))
    means = {name: sum(row[f"p_{name}"] for row in faces) / len(faces) for name in emotions}
    st.caption("On average:")
    views.bars(sorted(means.items(), key=lambda pair: -pair[1])[:3])
    if unsure := sum(row["unsure"] for row in faces):
        st.warning(f"The model is **unsure** in {unsure} of {len(faces)} frames.", icon=":material/help:")


def chart(rows: Sequence[dict[str, Any]], emotions: Sequence[str]) -> altair.Chart:
    """The emotions of a face over time, stacked to 100 %.

    Args:
      rows: of the table, of one face, at least one.
      emotions: all of them.
    """
    points = []
    for row in rows:
        period = round(row["seconds"] / _EVERY)
        span = {"from": period * _EVERY, "to": (period + 1) * _EVERY}
        points += [span | {"emotion": name, "probability": row[f"p_{name}"]} for name in emotions]
    colours = altair.Scale(domain=list(emotions), range=[drawing.COLOURS[name] for name in emotions])
    return (
        altair.Chart(altair.Data(values=points))
        .mark_bar()
        .encode(
            x=altair.X("from:Q", bin="binned", title="seconds"),
            x2="to:Q",
            y=altair.Y("probability:Q", title="probability", stack=True).axis(format="%"),
            color=altair.Color("emotion:N", scale=colours, legend=altair.Legend(orient="top", columns=4)),
            tooltip=["from:Q", "emotion:N", altair.Tooltip("probability:Q", format=".0%")],
        )
        .properties(height=300)
    )
