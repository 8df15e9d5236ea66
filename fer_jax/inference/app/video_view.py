"""Shows short videos in the app: a few frames per second, and emotions over time."""

import collections
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import altair
import numpy as np
import streamlit as st
from PIL import Image

from fer_jax.inference import drawing
from fer_jax.inference.app import analysis, uploads, views
from fer_jax.inference.app.model_choice import LOCK
from fer_jax.inference.app.uploads import plain
from fer_jax.inference.detection.detectors import MAX_SIDE_IN_VIDEO
from fer_jax.inference.media import tracking, video
from fer_jax.inference.output import table
from fer_jax.inference.output.timeline import UNSURE_ALPHA, Span, Timeline, longest
from fer_jax.inference.predictor import Predictor

_EVERY = 0.25  # seconds between analyzed frames
_MAX_FRAMES = math.ceil(uploads.VIDEO_SECONDS / _EVERY) + 1
_KEPT = "video"  # in the session


@dataclasses.dataclass(eq=False)
class AnalyzedVideo:
    """The faces of a video."""

    rows: list[table.Row] = dataclasses.field(default_factory=list)  # one per face in a frame
    images: dict[float, bytes] = dataclasses.field(default_factory=dict)  # JPEGs by time in seconds
    copy: bytes = b""  # the annotated frames as an MP4 video, without sound
    timeline: Timeline = dataclasses.field(default_factory=Timeline)
    fault: str = ""  # message for the visitor if the video ends early


def show(predictor: Predictor, key: tuple[str, str]) -> None:
    """Shows an uploaded video and its faces."""
    file = st.file_uploader(
        f"A video, up to {uploads.VIDEO_SECONDS} seconds and {uploads.VIDEO_MEGABYTES} MB",
        list(uploads.VIDEO_ENDINGS),
        max_upload_size=uploads.VIDEO_MEGABYTES,
        key="video_file",
    )
    if file is None:
        st.session_state.pop(_KEPT, None)
        return
    known, found = st.session_state.get(_KEPT, (None, None))
    if known != (file.file_id, *key):
        found = _analyze(file.getvalue(), file.name, predictor)
        st.session_state[_KEPT] = ((file.file_id, *key), found)
    if found.fault:
        st.error(plain(found.fault), icon=":material/error:")
    if found.images:
        _show_found(found, predictor.classifier.emotions)


def _analyze(content: bytes, name: str, predictor: Predictor) -> AnalyzedVideo:
    found, tracker, copy = AnalyzedVideo(), tracking.Tracker(), io.BytesIO()
    bar = st.progress(0.0, "Detecting faces ...")
    with video.encode(copy, 1 / _EVERY) as write:
        try:
            file, duration = uploads.open_video(content, name)
            frames = video.read_frames(file, _EVERY)
            while True:
                with LOCK:
                    if (frame := next(frames, None)) is None:
                        break
                    if len(found.images) >= _MAX_FRAMES or frame.seconds > uploads.VIDEO_SECONDS:
                        limit = f"{uploads.VIDEO_SECONDS} seconds: the rest is skipped"
                        found.fault = f"{name} lasts more than {limit}"
                        break
                    write(_add_frame(found, frame, name, predictor, tracker), frame.seconds)
                done = frame.seconds / duration if duration else len(found.images) / _MAX_FRAMES
                bar.progress(min(done, 1.0), f"{frame.seconds:.1f} seconds analyzed")
        except (uploads.UploadError, video.VideoError) as error:
            found.fault = str(error)
    bar.empty()
    found.copy = copy.getvalue()
    return found


def _add_frame(
    found: AnalyzedVideo, frame: video.Frame, name: str, predictor: Predictor, tracker: tracking.Tracker
) -> np.ndarray:
    """Adds a frame to everything but the copy; returns the annotated frame."""
    detected = predictor.detect(frame.image, max_side=MAX_SIDE_IN_VIDEO)
    faces = predictor.classify(detected.crops, detected.detections)
    tracks = tracker.update(faces, frame.seconds)
    detected = dataclasses.replace(detected, source=name, frame=frame.number, seconds=frame.seconds)
    found.rows += table.rows(detected, faces, tracks)
    found.timeline.add(detected, faces, tracks)
    drawn, file = analysis.draw(frame.image, faces, tracks), io.BytesIO()
    Image.fromarray(drawn).save(file, "JPEG", quality=80)
    found.images[round(frame.seconds, 2)] = file.getvalue()
    return drawn


def _show_found(found: AnalyzedVideo, emotions: Sequence[str]) -> None:
    if found.timeline.spans:
        st.markdown("**Emotions over time**, one line per face; pale where the model is unsure")
        st.altair_chart(timeline_chart(found.timeline.spans, emotions))
    left, right = st.columns(2, gap="medium")
    with left:
        _show_emotions(found, emotions)
    with right:
        times = list(found.images)
        when = st.select_slider("Second", times, key="second") if len(times) > 1 else times[0]
        st.image(found.images[when], width="stretch", alt=f"The frame at {when} seconds")
        with st.expander("Play the annotated video", icon=":material/movie:"):
            st.video(found.copy, format="video/mp4")
        st.download_button(
            "Download the annotated video (MP4)",
            found.copy,
            "annotated.mp4",
            "video/mp4",
            icon=":material/download:",
            on_click="ignore",
        )
    views.show_table(found.rows, emotions, "video.csv")


def _show_emotions(found: AnalyzedVideo, emotions: Sequence[str]) -> None:
    frames = collections.Counter(row["track"] for row in found.rows if "track" in row)
    if not frames:
        st.info(f"**No face found** in {len(found.images)} frames.", icon=":material/person_off:")
        return
    order = [track for track, _ in frames.most_common()]
    chosen = st.selectbox(
        "Face (track ID)",
        order,
        format_func=lambda track: f"{track}, in {frames[track]} of {len(found.images)} frames",
    )
    faces = [row for row in found.rows if row.get("track") == chosen]
    st.altair_chart(chart(faces, emotions))
    means = {name: sum(row[f"p_{name}"] for row in faces) / len(faces) for name in emotions}
    st.caption("Average:")
    views.bars(sorted(means.items(), key=lambda pair: -pair[1])[:3])
    if unsure := sum(row["unsure"] for row in faces):
        st.warning(f"The model is **unsure** in {unsure} of {len(faces)} frames.", icon=":material/help:")


def timeline_chart(spans: Sequence[Span], emotions: Sequence[str]) -> altair.Chart:
    """Returns a chart of emotions over time, one line for each of the longest tracks."""
    tracks = [track for _, track in longest(spans)]
    values = [
        {"face": one.track, "from": one.start, "to": one.end, "emotion": one.emotion, "unsure": one.unsure}
        for one in spans
        if one.track in tracks
    ]
    return _bars(
        values,
        emotions,
        x=altair.X("from:Q", title="seconds"),
        y=altair.Y("face:O", title="face", sort=tracks),
        opacity=altair.condition("datum.unsure", altair.value(UNSURE_ALPHA), altair.value(1)),
        tooltip=["face:O", "emotion:N", "unsure:N", "from:Q", "to:Q"],
    ).properties(height=80 + 24 * len(tracks))


def chart(rows: Sequence[table.Row], emotions: Sequence[str]) -> altair.Chart:
    """Returns a chart of a face's emotions over time, stacked to 100 %, from the rows of its track."""
    points = []
    for row in rows:
        period = round(row["seconds"] / _EVERY)
        span = {"from": period * _EVERY, "to": (period + 1) * _EVERY}
        points += [span | {"emotion": name, "probability": row[f"p_{name}"]} for name in emotions]
    return _bars(
        points,
        emotions,
        x=altair.X("from:Q", bin="binned", title="seconds"),
        y=altair.Y("probability:Q", title="probability", stack=True).axis(format="%"),
        tooltip=["from:Q", "emotion:N", altair.Tooltip("probability:Q", format=".0%")],
    ).properties(height=300)


def _bars(values: list[dict[str, Any]], emotions: Sequence[str], **encoding: Any) -> altair.Chart:
    """Returns a chart of bars from 'from' to 'to', in the color of their 'emotion'."""
    scale = altair.Scale(domain=list(emotions), range=[drawing.COLORS[name] for name in emotions])
    color = altair.Color("emotion:N", scale=scale, legend=altair.Legend(orient="top", columns=4))
    return altair.Chart(altair.Data(values=values)).mark_bar().encode(x2="to:Q", color=color, **encoding)
