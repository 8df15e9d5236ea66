"""Ends a session and deletes its data soon after the page is closed.

Streamlit itself keeps the session of a closed page for two minutes, so that lost connections can resume, and
uploads, images, and tables until the next visitor.
"""

import asyncio
import contextlib

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

GRACE = 60.0  # seconds for a lost connection to resume


def _end_soon(session_id: str) -> None:
    """Ends the session after `GRACE`; Streamlit calls this in its event loop when a page is closed."""
    with contextlib.suppress(RuntimeError):  # without a loop the server is shutting down
        asyncio.get_running_loop().call_later(GRACE, _end, session_id)


def _end(session_id: str) -> None:
    server = runtime.get_instance()
    if not server.is_active_session(session_id):  # the connection has not resumed
        server.close_session(session_id)
        server.media_file_mgr.remove_orphaned_files()  # a downloadable table survives the first call


@st.cache_resource(scope="session", on_release=_end_soon, show_spinner=False)
def end_with_the_page() -> str:
    """Ends the session soon after its page is closed; called by each run of the page."""
    context = get_script_run_ctx()
    return context.session_id if context else ""
