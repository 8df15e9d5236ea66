"""Registers the marker of the tests that drive a browser."""


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: drives Chromium (needs chromium, playwright, npm install)")
