"""What the demo says on the terminal: a table for people, or one line of JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.table import Table

from .tour import Step


class Report:
    """Writes to standard output; with ``as_json``, exactly one line, and only when everything went well."""

    def __init__(self, *, as_json: bool) -> None:
        self._console = Console(highlight=False)
        self._errors = Console(stderr=True, highlight=False)
        self._as_json = as_json
        self._steps: list[Step] = []

    def setting_up(self) -> AbstractContextManager[object]:
        """Shown while the processes start."""
        if self._as_json:
            return nullcontext()
        return self._console.status("starting the store, the session service and the demo site ...")

    def show(self, steps: Iterable[Step]) -> None:
        """Collect the steps, and show them as a table."""
        self._steps = list(steps)
        if self._as_json:
            return
        table = Table("step", "where, and what came of it", title="One session's life", title_justify="left")
        table.add_column("time", justify="right", no_wrap=True)
        for step in self._steps:
            table.add_row(step.name, step.outcome, duration(step.seconds))
        self._console.print(table)

    def ready(self, url: str, *, serving: bool) -> None:
        """The last word before serving, or before stopping."""
        if self._as_json:
            steps = [{"step": s.name, "outcome": s.outcome, "seconds": s.seconds} for s in self._steps]
            print(json.dumps({"url": url if serving else None, "steps": steps}), flush=True)
        elif serving:
            self._console.print(f"\nOpen [bold]{url}[/bold]   (Ctrl-C ends it)\n")
        else:
            self._console.print("All of it works.")

    def failed(self, failure: Exception) -> None:
        """A step went wrong."""
        self._errors.print(f"[bold red]The demo does not work here:[/] {failure}")

    def stopped(self) -> None:
        """Ctrl-C."""
        if not self._as_json:
            self._console.print("\nStopped.")


def duration(seconds: float) -> str:
    """A duration in the unit that leaves one to three digits before the point."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
