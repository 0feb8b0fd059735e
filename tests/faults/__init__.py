"""The fault harness: honest clients, revokers and thieves on real servers, faults, and a checker of what was answered.

docs/faults.md says what it does and how to read its report. ``python -m tests.faults.run`` at the top of the
repository, or ``make faults MINUTES=10``.
"""

import sys
from pathlib import Path

# The tests' own modules are found by their bare names, under pytest and without.
_TESTS = str(Path(__file__).resolve().parent.parent)
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)
