"""The programs that the browser tests drive."""

from __future__ import annotations

from typing import NamedTuple

from fix_requirements import require_tool


class Tools(NamedTuple):
    chromium: str
    npm: str


def find_tools() -> Tools:
    """Their paths; where one is missing the test, or the module that calls this as it is imported, is skipped."""
    require_tool("node", "apt-get install nodejs, which packs the web client for a page")
    return Tools(
        chromium=require_tool("chromium", "apt-get install chromium, which the web client runs in"),
        npm=require_tool("npm", "apt-get install npm, which installs the web client"),
    )
