"""Which frameworks and transfer methods a test goes through. ``make long`` goes through all of them."""

from __future__ import annotations

from typing import Any

import pytest
from browser_site import BLOCKING, FRAMEWORKS

MODES = ("cookie", "header")


def if_long(*values: Any) -> Any:
    """Parameters that wait for ``make long``."""
    return pytest.param(*values, marks=pytest.mark.long)


in_each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)

#: For what waits for the clock, or differs little from one framework to the next.
in_each_framework_if_long = pytest.mark.parametrize("framework", ["fastapi", *map(if_long, BLOCKING)])

#: Cookies in each, headers in one: they leave a framework less to do wrong.
in_each_framework_and_mode = pytest.mark.parametrize(
    ("framework", "mode"),
    [(name, "cookie") for name in FRAMEWORKS]
    + [("fastapi", "header")]
    + [if_long(name, "header") for name in BLOCKING],
)
