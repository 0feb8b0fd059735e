"""The time-out that does not count the event loop's own delay."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from fastverify.store.patience import InTime


def busy(there: socket.socket) -> None:
    """Somebody else's work, while which a reply arrives."""
    time.sleep(0.02)
    there.sendall(b"+OK\r\n")
    time.sleep(0.2)


async def test_what_arrived_while_the_loop_was_busy_has_arrived_in_time() -> None:
    """The same with asyncio's own time-out shows what this is for."""
    for timeout, in_time in ((asyncio.timeout, False), (InTime, True)):
        here, there = socket.socketpair()
        here.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=here)
        try:
            arrived = True
            try:
                async with timeout(0.05):
                    asyncio.get_running_loop().call_soon(busy, there)
                    assert await reader.readline() == b"+OK\r\n"
            except TimeoutError:
                arrived = False
            assert arrived == in_time
        finally:
            writer.close()
            there.close()


async def test_what_does_not_arrive_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        async with InTime(0.01):
            await asyncio.Event().wait()


async def test_a_cancellation_is_no_time_out() -> None:
    async def wait() -> None:
        async with InTime(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_out_that_was_left_in_time_does_nothing_afterwards() -> None:
    async with InTime(0.01):
        pass
    await asyncio.sleep(0.03)
    async with InTime(0.01):
        time.sleep(0.03)
    await asyncio.sleep(0.03)
