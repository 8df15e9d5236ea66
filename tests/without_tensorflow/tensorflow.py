"""Found before TensorFlow, which it is as good as not installed then. Importing that takes seconds."""

raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
