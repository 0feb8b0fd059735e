"""Fixtures for everybody; each file of fixtures says what is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["fix_requirements", "fix_stores", "fix_topologies", "fix_lab"]

ROOT = Path(__file__).resolve().parent.parent
#: The files that take longest: first, so that at the end no worker is left alone with one of them. Those that break or
#: move servers of a Cluster are not the neighbours of tests/faults, which starts the most processes.
LONGEST = (
    *("faults/test_faults.py", "store/test_contract.py", "test_rotation_stateful.py", "browser/test_web_client.py"),
    *("browser/test_every_framework.py", "browser/test_subdomains.py", "browser/test_cross_origin.py"),
    *("test_failover.py", "store/test_topologies.py", "test_wheel.py", "test_core_inside.py", "test_types.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first. All else stays as it is: a file's tests together, in the order of their lines."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of external test vectors: FASTVERIFY_VECTORS, or ``../shared/vectors`` beside the repository.

    They are not part of the project. Where they are absent the tests that read them are skipped, and say so; with
    FASTVERIFY_REQUIRE_ALL they fail.
    """
    named = os.environ.get("FASTVERIFY_VECTORS")
    folder = Path(named) if named else ROOT.parent / "shared" / "vectors"
    if not folder.is_dir():
        if named:
            pytest.fail(f"FASTVERIFY_VECTORS names no folder: {folder}")
        pytest.skip(
            "the test vectors are missing: set FASTVERIFY_VECTORS to the folder that holds wycheproof/ and the others"
        )
    return folder
