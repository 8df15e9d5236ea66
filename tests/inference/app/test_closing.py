"""Tests that a session ends when its page is closed, in Streamlit's own runtime."""

import asyncio

import pytest
from streamlit import config, runtime
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from fer_jax.inference.app import closing

PAGE = """
import numpy as np, streamlit as st
from fer_jax.inference.app import closing
closing.end_with_the_page()
st.image(np.zeros((4, 4), np.uint8))
st.download_button("Table", "face,emotion", "faces.csv")
st.text("done")
"""


class Visitor:
    """A client that disconnects once the page is drawn."""

    def __init__(self):
        self.drawn = asyncio.Event()

    def write_forward_msg(self, message):
        if "done" in str(message.delta):
            self.drawn.set()


@pytest.fixture
def visit(tmp_path, monkeypatch):
    """Opens the page with an upload and closes it once it is drawn; returns the remaining objects."""
    (tmp_path / "page.py").write_text(PAGE)
    monkeypatch.setattr(runtime.Runtime, "_instance", None)
    monkeypatch.setattr(closing, "GRACE", 0.0)

    async def run(resumes):
        uploads = MemoryUploadedFileManager("/upload")
        media = MemoryMediaFileStorage("/media")
        server = runtime.Runtime(runtime.RuntimeConfig(str(tmp_path / "page.py"), media, uploads))
        await server.start()
        visitor = Visitor()
        session = server.connect_session(visitor, {})
        uploads.add_file(session, UploadedFileRec("1", "face.png", "image/png", b"pixels"))
        message = BackMsg()
        message.rerun_script.query_string = ""
        server.handle_backmsg(session, message)
        await asyncio.wait_for(visitor.drawn.wait(), 60)
        server.disconnect_session(session)
        if resumes:
            server.connect_session(visitor, {}, existing_session_id=session)
        await asyncio.sleep(0)  # the timer of 0 seconds is due
        await asyncio.sleep(0)
        known = server._session_mgr.get_session_info(session) is not None
        left = (known, uploads.get_files(session, ["1"]), list(media._files_by_id))
        server.stop()
        await server.stopped
        return left

    option = config.get_option
    monkeypatch.setattr(
        config, "get_option", lambda name: {"server.fileWatcherType": "none"}.get(name) or option(name)
    )
    return lambda resumes=False: asyncio.run(run(resumes))


def test_nothing_of_a_closed_page_stays(visit):
    assert visit() == (False, [], [])


def test_a_connection_that_resumes_keeps_its_session(visit):
    known, uploads, media = visit(resumes=True)
    assert known and len(uploads) == 1 and len(media) == 2
