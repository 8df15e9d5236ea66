"""Ends a visitor's session, with all that it holds, soon after the page is closed.

By itself Streamlit keeps the session of a closed page for two minutes, so that a lost connection can resume,
and its uploads, images and tables until another visitor comes.
"""

import asyncio
import contextlib

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

GRACE = 60.0  # seconds in which a lost connection can resume


def _end_soon(session_id: str) -> None:
    """Ends the session after `GRACE`; Streamlit calls this where a page is closed, in its event loop."""
    with contextlib.suppress(RuntimeError):  # without a loop the server ends, and the session with it
        asyncio.get_running_loop().call_later(GRACE, _end, session_id)


def _end(session_id: str) -> None:
    server = runtime.get_instance()
    if not server.is_active_session(session_id):  # the connection has not resumed
        server.close_session(session_id)
        server.media_file_mgr.remove_orphaned_files()  # a table to download survives the first time


@st.cache_resource(scope="session", on_release=_end_soon, show_spinner=False)
def end_with_the_page() -> str:
    """Makes the session end soon after its page is closed; each run of the page calls this."""
    context = get_script_run_ctx()
    return context.session_id if context else ""
