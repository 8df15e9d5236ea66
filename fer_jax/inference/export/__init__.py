"""Exports: a trained network as a file for other runtimes, one format a module.

Every format's module has the same four functions: `write`, `load`, `annotate` and `read_metadata`.
"""
