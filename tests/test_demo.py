"""The command line and the demo, as processes: what they say, how they end, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from fastverify import AsyncSessions, Config
from fastverify.service.demo.site import create_site

FASTVERIFY = [sys.executable, "-m", "fastverify.service"]
SECRET = bytes(range(32)).hex()
WAIT = 30.0


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [*FASTVERIFY, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=WAIT
    )


def test_the_demo_takes_its_tour_and_ends(tmp_path: Path) -> None:
    done = run("demo", "--once", "--json", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    steps = [step["step"] for step in report["steps"]]
    assert {"sign in", "verify", "verify, cold", "verify, cached", "refresh", "revoke", "verify: refused"} <= set(steps)
    assert all(step["seconds"] > 0 for step in report["steps"])
    assert not list(tmp_path.glob("fastverify-*"))


def test_the_demo_on_a_terminal_is_a_table(tmp_path: Path) -> None:
    done = run("demo", "--once", TMPDIR=str(tmp_path), COLUMNS="100")
    assert done.returncode == 0
    assert "verify, cached" in done.stdout and done.stdout.rstrip().endswith("All of it works.")


@contextmanager
def serving_demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo once it serves, and its URL."""
    command = [*FASTVERIFY, "demo", "--json"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            yield demo, json.loads(demo.stdout.readline())["url"]
        finally:
            demo.kill()


def descendants_of(pid: int) -> list[int]:
    """The processes that this one's threads have started, and theirs."""
    lists = list(Path(f"/proc/{pid}/task").glob("*/children"))
    if not lists:
        pytest.skip("this system does not list a process's children: run it on Linux")
    children = [int(child) for one in lists for child in one.read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants_of(child)]


def wait_until_gone(pids: list[int]) -> None:
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], WAIT)[0], f"process {pid} is still there"
        finally:
            os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_demo_with_status_0_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with serving_demo(tmp_path) as (demo, url):
        assert httpx.get(url).status_code == 200
        children = descendants_of(demo.pid)
        assert len(children) >= 3  # the session service, the store and its watchdog
        demo.send_signal(number)
        assert demo.wait(WAIT) == 0
    wait_until_gone(children)
    assert not list(tmp_path.glob("fastverify-*"))


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    with serving_demo(tmp_path) as (demo, _):
        children = descendants_of(demo.pid)
        assert len(children) >= 3  # the session service, the store and its watchdog
        demo.kill()
        demo.wait(WAIT)
        wait_until_gone(children)


def test_serve_without_a_secret_is_wrong_use() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "FASTVERIFY_SECRET"}
    done = subprocess.run(
        [*FASTVERIFY, "serve"], env=environment, capture_output=True, text=True, check=False, timeout=WAIT
    )
    assert done.returncode == 2
    assert "FASTVERIFY_SECRET" in re.sub(r"\s+", " ", done.stderr)


@pytest.mark.parametrize("secret", ["not hexadecimal", "abcd", "00" * 32])
def test_serve_with_a_secret_that_cannot_work_is_wrong_use_and_does_not_repeat_it(secret: str) -> None:
    done = run("serve", FASTVERIFY_SECRET=secret, FASTVERIFY_STORE="unix:///nonexistent", FASTVERIFY_PORT="0")
    assert done.returncode == 2
    assert done.stderr.startswith("fastverify: secret: ") and secret not in done.stderr


def test_serve_on_a_store_that_no_url_names_is_wrong_use() -> None:
    done = run("serve", FASTVERIFY_SECRET=SECRET, FASTVERIFY_STORE="mysql://localhost", FASTVERIFY_PORT="0")
    assert done.returncode == 2
    assert "embedded://" in done.stderr


def test_serve_on_a_port_that_is_taken_is_a_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", FASTVERIFY_SECRET=SECRET, FASTVERIFY_STORE="unix:///nonexistent", FASTVERIFY_PORT=port)
    assert done.returncode == 1
    assert done.stderr.startswith("fastverify: ")


def test_serve_listens_and_stops_when_its_parent_lets_go(embedded_url: str, unique_prefix: str) -> None:
    environment = {
        **os.environ,
        "FASTVERIFY_SECRET": SECRET,
        "FASTVERIFY_STORE": embedded_url,
        "FASTVERIFY_KEY_PREFIX": unique_prefix,
    }
    with socket.create_server(("127.0.0.1", 0)) as listening:
        descriptor = listening.fileno()
        command = [*FASTVERIFY, "serve", f"--fd={descriptor}", "--exit-with-stdin"]
        origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
        service = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, pass_fds=[descriptor])
    with service:
        assert httpx.get(f"{origin}/health/ready", timeout=WAIT).status_code == 200
        assert httpx.get(f"{origin}/v1/verify", timeout=WAIT).status_code == 401
        stdin: IO[bytes] | None = service.stdin
        assert stdin is not None
        stdin.close()
        assert service.wait(WAIT) == 0


@pytest.fixture
async def site(embedded_url: str, unique_prefix: str) -> AsyncIterator[httpx.AsyncClient]:
    """The demo site alone, without the session service that it asks for its verdict."""
    origin = "http://localhost:8000"
    config = Config(
        api_domain=origin, website_domain=origin, secret=bytes(range(32)), key_prefix=unique_prefix, shards=1
    )
    async with AsyncSessions.connect(embedded_url, config) as sessions:
        transport = httpx.ASGITransport(create_site(sessions, service="http://127.0.0.1:1"))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=origin) as client:
            yield client


async def sign_in(site: httpx.AsyncClient, user: str) -> dict[str, str]:
    reply = await site.post("/api/sign-in", json={"user": user}, headers={"st-auth-mode": "header"})
    assert reply.status_code == 200
    return {"authorization": f"Bearer {reply.headers['st-access-token']}"}


@pytest.mark.parametrize("path", ["/", "/demo.css", "/demo.js"])
async def test_the_page_asks_no_other_host_for_anything(site: httpx.AsyncClient, path: str) -> None:
    reply = await site.get(path)
    assert reply.status_code == 200
    assert reply.headers["content-security-policy"].startswith("default-src 'self'")
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"//.*$|/\*.*?\*/", "", reply.text, flags=re.MULTILINE))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"user": ""}', b'{"user": 7}', b'{"user": "a", "plan": "gold"}'])
async def test_a_sign_in_that_makes_no_sense_is_refused(site: httpx.AsyncClient, body: bytes) -> None:
    reply = await site.post("/api/sign-in", content=body)
    assert reply.status_code == 400
    assert "st-access-token" not in reply.headers


async def test_a_change_of_plan_is_in_the_access_token_of_its_own_response(site: httpx.AsyncClient) -> None:
    ada = await sign_in(site, "ada")
    changed = await site.post("/api/plan", json={"plan": "team"}, headers=ada)
    me = await site.get("/api/me", headers={"authorization": f"Bearer {changed.headers['st-access-token']}"})
    assert me.json()["claims"]["plan"] == "team"


async def test_nobody_ends_a_session_of_somebody_else(site: httpx.AsyncClient) -> None:
    ada, eve = await sign_in(site, "ada"), await sign_in(site, "eve")
    (row,) = (await site.get("/api/sessions", headers=ada)).json()["sessions"]
    assert (await site.post(f"/api/sessions/{row['handle']}/revoke", headers=eve)).status_code == 404
    assert (await site.get("/api/me", headers=ada)).status_code == 200


async def test_one_session_ends_another_of_the_same_user(site: httpx.AsyncClient) -> None:
    first, second = await sign_in(site, "ada"), await sign_in(site, "ada")
    rows = (await site.get("/api/sessions", headers=first)).json()["sessions"]
    (other,) = (row["handle"] for row in rows if not row["current"])
    assert (await site.post(f"/api/sessions/{other}/revoke", headers=first)).json() == {"revoked": True}
    assert (await site.get("/api/me", headers=second)).status_code == 401
    assert (await site.get("/api/me", headers=first)).status_code == 200


async def test_signing_out_everywhere_ends_all_and_clears_these_tokens(site: httpx.AsyncClient) -> None:
    first, second = await sign_in(site, "ada"), await sign_in(site, "ada")
    reply = await site.post("/api/sessions/revoke-all", headers=first)
    assert reply.json() == {"revoked": 2} and reply.headers["front-token"] == "remove"
    assert (await site.get("/api/me", headers=second)).status_code == 401


async def test_asking_for_verdicts_changes_nothing_when_the_session_has_ended(site: httpx.AsyncClient) -> None:
    first, second = await sign_in(site, "ada"), await sign_in(site, "ada")
    await site.post("/api/sessions/revoke-all", headers=first)
    reply = await site.get("/api/verdicts", headers=second)
    assert reply.status_code == 200 and "front-token" not in reply.headers
    assert reply.json()["site"] == {"status": 401, "message": "unauthorised"}
    assert reply.json()["service"]["status"] == 502
