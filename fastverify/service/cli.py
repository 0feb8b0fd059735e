"""The entry point of the ``fastverify`` command: exit statuses, and a plain word where the extra is missing.

Exit status: 0 done, 1 a negative answer or a fault, 2 wrong use.
"""

from __future__ import annotations

import sys

from ..errors import ConfigError, FastVerifyError

#: What the extra ``server`` brings; anything else that cannot be imported is a fault of ours and is shown as one.
_EXTRA = frozenset({"publicsuffixlist", "rich", "starlette", "typer", "uvicorn"})


def main() -> None:
    """Run the command line, and exit with its status."""
    try:
        from .commands import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.exit(_complain(f"this command needs the extra 'server': pip install 'fastverify[server]' ({error})", 2))
    try:
        app()
    except ConfigError as error:
        sys.exit(_complain(str(error), 2))
    except (FastVerifyError, OSError) as error:
        sys.exit(_complain(str(error), 1))


def _complain(message: str, status: int) -> int:
    print(f"fastverify: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
