"""The suite under AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer: `make sanitize`.

    python tests/sanitize.py [pytest's arguments]

The core is built with gcc's sanitizers into build/sanitize (instrumented.py), and pytest runs with their runtime loaded
before everything else. A report of any process fails the run, whatever pytest says. That a report would be seen is
proved first, by a read past the end of a buffer.

Python has its memory from malloc here, each object by itself, so that reading past the end of a bytes object is seen
too. At its end it leaves behind what the system will take anyway, so leaks are looked for before that: after the last
test, while all that is alive can still be reached. What is found then is plain memory that nothing refers to any more;
lost Python objects hang on the collector's list, and the suite counts those itself. This file is also the pytest plugin
that asks.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from instrumented import FLAGS, ROOT, build_core, leak_options, say

FOLDER = ROOT / "build" / "sanitize"
REPORTS = FOLDER / "reports"

#: Tests that are not run here, and why. All others are, those of tomorrow included.
LEFT_OUT = {
    "tests/browser": "drives Chromium and Node",
    "tests/faults": "times and forks processes of its own",
    "tests/test_demo.py": "starts the command and looks at what it prints",
    "tests/test_dockerfile.py": "builds environments of its own",
    "tests/test_wheel.py": "builds wheels",
    "tests/test_setup.py": "builds the core, ordinarily",
    "tests/test_types.py": "runs mypy and stubtest",
    "tests/test_layers.py": "reads imports",
    "tests/test_readme.py": "runs the programs of the pages",
    "tests/model": "a model in plain Python",
    "tests/store": "about the store and its client",
    "tests/test_scripts.py": "about Lua",
    "tests/test_rotation.py": "about Lua and the flows",
    "tests/test_rotation_stateful.py": "about Lua and the flows",
    "tests/test_keys.py::test_making_and_dropping_keys_leaks_nothing": "measures memory, and here freed memory is kept",
    "tests/test_manager.py::test_a_burst_of_calls_on_one_event_loop_is_served": "needs a store at its usual speed",
    "tests/test_fast_paths.py::test_a_child_builds_the_table_that_it_lacks": "forks beside a thread that allocates: "
    "the sanitizer's allocator may then be locked in the child for good",
}

#: An absurd request for memory is a MemoryError, as it is without the sanitizer.
ADDRESS_SANITIZER = (
    *("detect_leaks=1", "leak_check_at_exit=0"),
    *("detect_stack_use_after_return=1", "allocator_may_return_null=1"),
)
OVERRUN = "import ctypes; ctypes.string_at((ctypes.c_char * 64)(), 65)"
#: Every Python process runs this when it starts: beside AddressSanitizer, gcc's other sanitizer heeds no log_path.
SET_REPORT_PATH = "import ctypes; ctypes.CDLL({library!r}).__sanitizer_set_report_path(b'{path}')\n"
WHICH_CORE = "import fastverify._core; print(fastverify._core.__file__)"

NO_RUNTIME = """
The core is not linked with {missing}: this needs gcc and its sanitizers' shared libraries.
  Debian, Ubuntu:  apt-get install gcc              (they come with it)
  Fedora, RHEL:    dnf install gcc libasan libubsan
"""


def pytest_sessionfinish() -> None:
    """The plugin: ask for leaks when the last fixture is gone, and before Python ends."""
    gc.collect()
    ctypes.CDLL(None).__lsan_do_recoverable_leak_check()


def main(arguments: list[str]) -> int:
    """Build, prove, run; the exit status."""
    library = build_core(FOLDER, os.environ.get("CC", "gcc"), FLAGS)
    environment = environment_with(*runtimes_of(library))
    prove(environment, library)
    for name, reason in LEFT_OUT.items():
        say(f"left out: {name} ({reason})")
    status = subprocess.run([sys.executable, *options_of_pytest(arguments)], cwd=ROOT, env=environment).returncode
    reports = take_reports()
    print("".join(reports), end="")
    say(f"{len(reports)} sanitizer reports, pytest's status {status}")
    return 1 if reports else status


def runtimes_of(library: Path) -> list[str]:
    """The runtimes of the two sanitizers that the extension is linked with."""
    needed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    found = {name: re.search(rf"{name}\S* => (/\S+)", needed) for name in ("libasan", "libubsan")}
    if missing := [name for name, match in found.items() if match is None]:
        raise SystemExit(NO_RUNTIME.format(missing=" and ".join(missing)))
    return [match[1] for match in found.values() if match]


def environment_with(address_runtime: str, undefined_runtime: str) -> dict[str, str]:
    """Everything a process needs to run the instrumented core, and to write its reports where they are found."""
    (FOLDER / "sitecustomize.py").write_text(SET_REPORT_PATH.format(library=undefined_runtime, path=REPORTS / "report"))
    settings = (*ADDRESS_SANITIZER, f"log_path={REPORTS}/report", os.environ.get("ASAN_OPTIONS", ""))
    return os.environ | {
        "LD_PRELOAD": address_runtime,
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": f"{FOLDER}:{ROOT / 'tests'}",
        "PYTHONSAFEPATH": "1",  # not the working directory, where the ordinary core lies
        "ASAN_OPTIONS": ":".join(settings),
        "LSAN_OPTIONS": leak_options(FOLDER),
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def prove(environment: dict[str, str], library: Path) -> None:
    """The core that is imported is the instrumented one, and a read past the end is reported."""
    which = subprocess.run(
        [sys.executable, "-c", WHICH_CORE], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if which.stdout.strip() != str(library):
        raise SystemExit(f"another core is imported: {which.stdout}{which.stderr}{''.join(take_reports())}")
    take_reports()
    subprocess.run([sys.executable, "-c", OVERRUN], env=environment, capture_output=True)
    if "heap-buffer-overflow" not in "".join(take_reports()):
        raise SystemExit("AddressSanitizer is not at work: a read past the end of a buffer went unnoticed")


def take_reports() -> list[str]:
    """What the sanitizers have written since the last call."""
    reports = [path.read_text(errors="replace") for path in sorted(REPORTS.glob("report.*"))]
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    return reports


def options_of_pytest(arguments: list[str]) -> list[str]:
    """What comes after the interpreter. pytest's own handler of crashes would be asked before the sanitizer's."""
    left_out = [f"--{'deselect' if '::' in name else 'ignore'}={name}" for name in LEFT_OUT]
    plugins = [*("-p", "sanitize"), *("-p", "no:faulthandler"), *("-p", "no:cacheprovider")]
    return ["-m", "pytest", *plugins, *left_out, *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
