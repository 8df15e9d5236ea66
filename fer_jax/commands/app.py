"""Opens the app in a browser: fer-jax app [STREAMLIT OPTIONS] [-- --models FOLDER].

The app offers the bundled networks, and all .safetensors files below FOLDER.
"""

import importlib.util
import pathlib
import sys

APP = pathlib.Path(__file__).resolve().parents[1] / "inference" / "app" / "app.py"


def main() -> int | None:
    """Runs the app until it is stopped; returns the exit code."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if not importlib.util.find_spec("streamlit"):
        print("error: the app needs streamlit: pip install 'fer_jax[app]'", file=sys.stderr)
        return 1
    from streamlit.web import cli

    sys.argv = ["streamlit", "run", str(APP), *sys.argv[1:]]
    return cli.main()
