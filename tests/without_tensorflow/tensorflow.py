"""Hides TensorFlow, whose import takes seconds, from processes with this folder in PYTHONPATH."""

raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
