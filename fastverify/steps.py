"""One piece of logic for blocking and for asyncio code: a generator that yields what it is waiting for.

It calls a facade and yields the result: ``issued = yield sessions.create(user_id)``. With ``Sessions`` that is the
value itself, and ``run`` hands it back; with ``AsyncSessions`` it is an awaitable, and ``run_async`` awaits it first.
Errors arrive where the ``yield`` is in both.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
#: Yields values or awaitables, is sent the values, returns its result.
Steps: TypeAlias = Generator[Any, Any, T]


def run(steps: Steps[T]) -> T:
    """Run to the end, blocking, and return the result.

    Raises:
        TypeError: an awaitable, which only ``run_async`` can wait for.
    """
    value = None
    try:
        while True:
            value = steps.send(value)
            if inspect.isawaitable(value):
                if inspect.iscoroutine(value):
                    value.close()
                raise TypeError("an asynchronous function was given to blocking sessions; use AsyncSessions with it")
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()


async def run_async(steps: Steps[T]) -> T:
    """As ``run``, awaiting what can be awaited."""
    try:
        step = steps.send(None)
        while True:
            try:
                value = await step if inspect.isawaitable(step) else step
            except BaseException as error:  # cancelling too: the steps may have to undo something
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        steps.close()
