"""A session service whose flows are driven by hand, on each store in turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fix_stores import PATIENT
from session_lab import Lab

from fastverify.store import Store, open_store


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """Each store in turn."""
    store = open_store(store_url, **PATIENT)
    store.start()
    yield store
    store.close()


@pytest.fixture
def lab(store: Store, unique_prefix: str) -> Iterator[Lab]:
    """A service with the default settings."""
    lab = Lab(store, unique_prefix)
    yield lab
    lab.close()
