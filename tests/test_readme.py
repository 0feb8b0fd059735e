"""The README and the documentation are true: their programs run, their links resolve, their tables are complete."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fix_stores import Launch

import fastverify
from fastverify.adapters.asgi import RequestSession

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store of the page's own: its programs use the default key prefix."""
    return f"embedded://{tmp_path}/store"


def programs(page: Path, store: str) -> list[str]:
    """The page's programs, on this store; all of them one after another, as somebody who tries them out would."""
    return PROGRAM.findall(page.read_text("utf-8").replace("redis://localhost:6379/0", store))


async def sign_in_and_ask(app: object) -> httpx.Response:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
        signed_in = await client.post("/login", headers={"st-auth-mode": "header"})
        bearer = {"authorization": f"Bearer {signed_in.headers['st-access-token']}"}
        return await client.get("/me", headers=bearer)


def test_the_readmes_programs_run_one_after_the_other(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocking, asynchronous, gateway, _ = programs(ROOT / "README.md", store)
    for program in (blocking, asynchronous, gateway):
        exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == ["user-1 pro", "unauthorised"]


@pytest.mark.parametrize("page", ["README.md", "docs/frameworks/fastapi.md"])
async def test_the_fastapi_application_signs_in_and_knows_the_user(page: str, store: str) -> None:
    (program,) = (text for text in programs(ROOT / page, store) if "= FastAPI(" in text)
    names: dict[str, object] = {}
    exec(compile(program, page, "exec"), names)
    async with names["sessions"]:  # type: ignore[attr-defined]
        answer = await sign_in_and_ask(names["app"])
    assert (answer.status_code, answer.json()) == (200, {"user": "user-1", "plan": "pro"})


@pytest.mark.parametrize("name", ["asgi", "starlette"])
async def test_the_program_of_an_asynchronous_framework_runs(name: str, store: str) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    (program,) = programs(ROOT / f"docs/frameworks/{name}.md", store)
    exec(compile(program, f"{name}.md", "exec"), names)
    async with names["sessions"]:
        answer = await sign_in_and_ask(names["app"])
    assert (answer.status_code, answer.json()) == (200, {"user": "user-1", "plan": "pro"})


#: What a page's blocking application is asked. Django has one set of settings in a process, so each has its own.
ASK = """
import httpx, json
with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://localhost:8000") as client:
    signed_in = client.post("/login", headers={"st-auth-mode": "header"})
    answer = client.get("/me", headers={"authorization": f"Bearer {signed_in.headers['st-access-token']}"})
    print(answer.status_code, json.dumps(answer.json(), sort_keys=True), client.get("/me").json()["message"])
"""


@pytest.mark.parametrize("name", ["wsgi", "flask", "django", "drf"])
def test_the_program_of_a_blocking_framework_runs(name: str, store: str) -> None:
    (program,) = programs(ROOT / f"docs/frameworks/{name}.md", store)
    ran = subprocess.run(
        [sys.executable, "-"], input=program + ASK, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert ran.stdout == '200 {"plan": "pro", "user": "user-1"} unauthorised\n', ran.stderr


def test_the_quick_start_runs(store: str) -> None:
    names: dict[str, object] = {}
    for program in programs(ROOT / "docs/quickstart.md", store):
        exec(compile(program, "quickstart.md", "exec"), names)


def test_the_page_about_keys_signs_a_token_that_another_service_reads(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = programs(ROOT / "docs/keys.md", store)
    exec(compile(program, "keys.md", "exec"), {})
    assert capsys.readouterr().out == "reports ['read']\n"


def test_the_documented_permissions_suffice_for_all_that_the_readme_does_and_for_events(
    launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/store.md").read_text("utf-8")
    paragraph = page[page.index("A restricted ACL user") : page.index("## What is in it")]
    (keys,) = re.findall(r"~[^`]+", paragraph)
    commands = re.findall(r"\+@?[a-z]+", paragraph)
    server = launch()
    with server.client() as client:
        client.acl_setuser("app", enabled=True, passwords=["+right-horse"], keys=[keys[1:]], commands=commands)
    blocking, *_ = programs(ROOT / "README.md", server.url.replace("//", "//app:right-horse@"))
    exec(compile(blocking, "README.md", "exec"), {})
    events, *_ = programs(ROOT / "docs/events.md", server.url.replace("//", "//app:right-horse@"))
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(events, "events.md", "exec"), names)
    names["main"]()
    assert "session_revoked user-2" in capsys.readouterr().out


def test_all_that_the_session_of_a_request_has_is_listed() -> None:
    page = (ROOT / "docs/http.md").read_text("utf-8")
    table = page[page.index("## The session of a request") : page.index("## A page on another origin")]
    listed = {name for row in re.findall(r"^\|(.*?)\|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert listed == {
        name for name in dir(RequestSession) if not name.startswith("_") and not name.endswith("_steps")
    } - {"session"}


def test_every_setting_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)$", (ROOT / "docs/configuration.md").read_text("utf-8"), re.MULTILINE)
    documented = dict(rows)
    for field in dataclasses.fields(fastverify.Config):
        row = documented.pop(field.name)
        if field.default is not dataclasses.MISSING and field.default != "":
            default = f"`{field.default}`" if isinstance(field.default, str) else str(field.default)
            assert row.split("|")[0].strip() == default, field.name
    assert not documented


def test_every_variable_that_the_command_reads_is_documented() -> None:
    read = set(re.findall(r'envvar="(FASTVERIFY_\w+)"', (ROOT / "fastverify/service/commands.py").read_text("utf-8")))
    documented = set(re.findall(r"`(FASTVERIFY_\w+)`", (ROOT / "docs/configuration.md").read_text("utf-8")))
    assert read and read == documented


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
