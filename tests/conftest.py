"""Fixtures for everybody; each file of fixtures says what is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["fix_requirements", "fix_stores", "fix_topologies", "fix_lab"]

ROOT = Path(__file__).resolve().parent.parent


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
