"""Shows the live webcam in the app, with the extra webrtc.

A browser reaches a server in another network only through a STUN or TURN server. Configure it in
$FER_JAX_ICE_SERVERS, or as `ice_servers` in Streamlit's secrets.toml: a JSON list (in secrets.toml, a list of
tables) in WebRTC's format, such as

    [{"urls": "turn:turn.example.org:3478", "username": "name", "credential": "secret"}]

Without it, only browsers on this machine or in its network can connect.
"""

import importlib.util
import json
import os
from collections.abc import Sequence
from typing import Any

import av
import streamlit as st

from fer_jax.inference.app import analysis
from fer_jax.inference.detection.detectors import MAX_SIDE_IN_VIDEO
from fer_jax.inference.predictor import Predictor

ICE_VARIABLE = "FER_JAX_ICE_SERVERS"
_CAMERA = {"video": {"width": {"ideal": 640}, "frameRate": {"ideal": 15}}, "audio": False}
_MAX_FACES = 8  # per frame, the largest


def is_installed() -> bool:
    """Returns whether the extra webrtc is installed."""
    return importlib.util.find_spec("streamlit_webrtc") is not None


def show(predictor: Predictor) -> bool:
    """Shows the live video, or an error; returns whether it works."""
    try:
        servers = ice_servers()
    except ValueError as error:
        st.error(f"Live video is misconfigured: {error}")
        return False
    from streamlit_webrtc import WebRtcMode, webrtc_streamer

    with st.spinner("Preparing the live video ..."):
        predictor.classifier.engine.warm_up()
    context = webrtc_streamer(
        "live",
        WebRtcMode.SENDRECV,
        rtc_configuration={"iceServers": servers},
        media_stream_constraints=_CAMERA,
        queued_video_frames_callback=_latest_of(predictor),
        async_processing=True,
    )
    st.caption("Only the latest frame is analyzed; frames are not stored.")
    if context.state.playing:
        return True
    st.info(
        "Press START and allow the camera. If no video appears within ten seconds, the browser cannot "
        "connect to the server by WebRTC (because of a firewall or a missing TURN server): take a "
        "snapshot instead.",
        icon=":material/videocam:",
    )
    return False


def ice_servers() -> list[dict[str, Any]]:
    """Returns the configured STUN and TURN servers, or an empty list.

    Raises:
      ValueError: the configuration is not a list of servers.
    """
    text = os.environ.get(ICE_VARIABLE)
    try:
        servers = json.loads(text) if text else _secret()
    except json.JSONDecodeError as error:
        raise ValueError(f"${ICE_VARIABLE} is not JSON ({error})") from error
    if not isinstance(servers, list) or not all(isinstance(one, dict) and "urls" in one for one in servers):
        raise ValueError(
            f"${ICE_VARIABLE}, or ice_servers in secrets.toml: expected a list such as "
            '[{"urls": "turn:HOST:3478", "username": "NAME", "credential": "SECRET"}]'
        )
    return servers


def _secret() -> Any:
    try:
        return [dict(one) for one in st.secrets.get("ice_servers", [])]
    except (FileNotFoundError, TypeError):  # no secrets.toml, or other content
        return []


def _latest_of(predictor: Predictor) -> Any:
    """Returns a callback that analyzes only the latest of the queued frames."""

    async def annotate(frames: Sequence[av.VideoFrame]) -> list[av.VideoFrame]:
        image = frames[-1].to_ndarray(format="rgb24")
        found = predictor.detect(image, max_side=MAX_SIDE_IN_VIDEO)
        faces = predictor.classify(found.crops[:_MAX_FACES], found.detections[:_MAX_FACES])
        return [av.VideoFrame.from_ndarray(analysis.draw(image, faces), format="rgb24")]

    return annotate
