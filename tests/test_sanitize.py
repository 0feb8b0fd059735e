"""What `make sanitize` leaves out is there, and has not been renamed since."""

from __future__ import annotations

import pytest
from instrumented import ROOT
from sanitize import LEFT_OUT


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_exists(name: str) -> None:
    path, _, test = name.partition("::")
    assert (ROOT / path).exists()
    assert not test or f"def {test}(" in (ROOT / path).read_text()
