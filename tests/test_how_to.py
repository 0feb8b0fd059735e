"""Each feature that SuperTokens has a guide for has a page and a program here, and the program is run."""

from __future__ import annotations

import re

import pytest
from transcripts import ROOT, examples_shown, transcript

INDEX = ROOT / "docs" / "how-to.md"
_ROW = re.compile(r"^\| [^|]+ \| \[([^]]+)\]\(([\w-]+\.md)\) \| ((?:\[\w+\.py\]\(\.\./examples/\w+\.py\)(?:, )?)+) \|$")

#: One for each feature.
PAGES = {
    *("session-data.md", "invalidate-sessions.md", "subdomains.md", "cookie-or-header.md", "anonymous.md"),
    *("impersonation.md", "error-handling.md", "several-apis.md", "blacklist.md"),
}


def rows() -> dict[str, list[str]]:
    """The programs of each page."""
    found = filter(None, map(_ROW.match, INDEX.read_text("utf-8").splitlines()))
    return {row[2]: re.findall(r"\[(\w+\.py)\]", row[3]) for row in found}


def test_the_index_lists_these_and_nothing_else() -> None:
    assert rows().keys() == PAGES


@pytest.mark.parametrize("name", rows())
def test_a_page_shows_its_programs_word_for_word_and_they_are_run(name: str) -> None:
    programs = rows()[name]
    page = ROOT / "docs" / name
    assert page.read_text("utf-8").startswith("# ")
    assert {path.name for path in examples_shown(page)} == set(programs)
    by_hand = re.findall(r'"(\w+\.py)"', (ROOT / "tests" / "test_examples.py").read_text("utf-8"))
    assert transcript(page) or set(programs) <= set(by_hand)


def test_the_index_is_where_readers_look() -> None:
    assert "(how-to.md)" in (ROOT / "docs" / "index.md").read_text("utf-8")
    assert "(docs/how-to.md)" in (ROOT / "README.md").read_text("utf-8")
