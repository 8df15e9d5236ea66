"""Helpers for tests of fer-jax predict: reads its outputs, and calls it in this process."""

import pytest

from fer_jax.commands import predict


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.csv"


@pytest.fixture
def drawn(tmp_path):
    return tmp_path / "drawn"


@pytest.fixture
def run(tiny_run):
    def start(*arguments):
        return predict.main([*map(str, arguments), "--model", str(tiny_run), "--detector", "whole"])

    return start
