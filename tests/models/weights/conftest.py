"""Fixtures of the tests of weights."""

from __future__ import annotations

import pytest

from helpers.cached_weights import WEIGHTS


@pytest.fixture
def mirror(server, cache, monkeypatch):
    """A mirror that has the weights."""
    server.content = WEIGHTS
    monkeypatch.setenv("PPLC_MIRROR", server.url("mirror/"))
    return server
