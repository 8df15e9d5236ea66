"""Runs `python -m fer_jax.main ARGUMENTS` again and again, without importing everything each time.

Reads lines of JSON, each the arguments of a command; forks a process that runs it, and writes a line of JSON:
[exit code, what it wrote to stdout, what to stderr].
"""

import json
import os
import sys
import tempfile

from absl import app

import configs.default  # noqa: F401
import fer_jax.training.train  # noqa: F401
from fer_jax import main

for line in sys.stdin:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if not pid:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = ["python -m fer_jax.main", *json.loads(line)]
            app.run(main.main, flags_parser=main.parse_flags)
            sys.exit()
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        err.seek(0)
        print(json.dumps([os.waitstatus_to_exitcode(status), out.read(), err.read()]), flush=True)
