"""What a machine may lack: one skip that says what to install, or a failure where nothing may be missing.

Set ``FASTVERIFY_REQUIRE_ALL=1`` (as ``.ci/run`` does) where every tool is known to be installed: a skipped test fails
there, whoever skipped it and why. Only what the machine itself refuses, whatever is installed on it, is skipped there
too, and said at the end.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Generator
from typing import NoReturn, TypeVar

import pytest

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)


def require_tool(name: str, hint: str) -> str:
    """The path of a program; without it the test is skipped with one line that names it and what to install.

    Called while a module is imported, it skips the module: one line for all of its tests.
    """
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: {hint}", allow_module_level=True)
    return path


_REFUSED = "this machine refuses "


def skip_refused(what: str) -> NoReturn:
    """Skip a test for something that a machine may refuse to whoever runs there; under REQUIRE_ALL too."""
    pytest.skip(_REFUSED + what)


def _fail_if_skipped(report: R) -> R:
    expected_failure = hasattr(report, "wasxfail")
    if report.skipped and not expected_failure and os.environ.get("FASTVERIFY_REQUIRE_ALL"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if reason.removeprefix("Skipped: ").startswith(_REFUSED):
            return report
        report.outcome = "failed"
        report.longrepr = f"FASTVERIFY_REQUIRE_ALL is set, and this was skipped: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _fail_if_skipped((yield))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason to skip: what to install, and how many tests that would add."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"SKIPPED [{count}] {reason}")
