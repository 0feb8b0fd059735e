"""The examples do what their pages say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import transcripts

from fastverify import SessionClaimValidator

ROOT = Path(__file__).resolve().parent.parent
#: Pages that show what to type.
TYPED = [page for page in sorted((ROOT / "docs").rglob("*.md")) if transcripts.transcript(page)]


def program(name: str, store: Path) -> dict[str, Any]:
    """Run an example on a store of its own, and return its names."""
    text = (
        (ROOT / "examples" / name).read_text("utf-8").replace("redis://localhost:6379/0", f"embedded://{store}/store")
    )
    names: dict[str, Any] = {"__name__": name.removesuffix(".py")}
    exec(compile(text, name, "exec"), names)
    return names


class App(httpx.AsyncClient):
    """A client that keeps the access token, as an app does."""

    def __init__(self, app: Any) -> None:
        transport = httpx.ASGITransport(app)
        super().__init__(transport=transport, base_url="http://localhost:8000", headers={"st-auth-mode": "header"})
        self.event_hooks = {"response": [self._keep]}

    async def _keep(self, response: httpx.Response) -> None:
        if token := response.headers.get("st-access-token"):
            self.headers["authorization"] = f"Bearer {token}"

    async def failed(self, method: str, path: str) -> dict[str, str]:
        """The claims that a call fails for, and why."""
        response = await self.request(method, path)
        assert response.status_code == 403
        return {error["id"]: error["reason"]["message"] for error in response.json()["claimValidationErrors"]}


@pytest.fixture
async def claims(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    names = program("claims.py", tmp_path)
    async with names["sessions"]:
        yield names


async def test_claims(claims: dict[str, Any]) -> None:
    async with App(claims["app"]) as app:
        await app.post("/login")
        assert await app.failed("GET", "/me") == {"st-ev": "wrong value"}
        assert await app.failed("GET", "/reports") == {"st-ev": "wrong value", "plan": "wrong value"}
        assert (await app.post("/email/verify")).status_code == 200
        assert (await app.get("/me")).json() == {"user": "user-1", "plan": "free"}
        assert await app.failed("GET", "/reports") == {"plan": "wrong value"}
        assert (await app.post("/upgrade")).status_code == 200
        assert (await app.get("/reports")).json() == {"reports": []}

        handle = (await claims["sessions"].handles("user-1"))[0]
        await claims["sessions"].merge_payload(handle, {"auth_time": 1})
        await app.post("/upgrade")  # its response shows the client what the store holds
        assert await app.failed("DELETE", "/account") == {"auth_time": "expired"}
        assert (await app.post("/password")).status_code == 200
        assert (await app.delete("/account")).json() == {"ok": True}
        assert (await app.get("/me")).status_code == 401


def test_the_page_about_claims_shows_the_example_and_a_validator_that_works() -> None:
    page = (ROOT / "docs" / "claims.md").read_text("utf-8")
    example, own = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert example == (ROOT / "examples" / "claims.py").read_text("utf-8")
    names: dict[str, Any] = {}
    exec(compile(own, "claims.md", "exec"), names)
    validator: SessionClaimValidator = names["SameCountry"]("NZ")
    assert validator.validate({"country": "NZ"}, 0) is None
    assert validator.validate({}, 0) == {"message": "wrong country", "expected": "NZ"}


@pytest.mark.parametrize("page", TYPED, ids=lambda page: page.stem)
def test_what_a_page_shows_is_what_a_stranger_gets(page: Path, tmp_path: Path) -> None:
    transcripts.check(page, tmp_path)


def test_a_page_that_is_not_true_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    true = (ROOT / "docs" / "cookie-or-header.md").read_text("utf-8")
    page.write_text(true.replace('{"user":"user-1"}\n', '{"user":"user-2"}\n'), "utf-8")
    with pytest.raises(AssertionError, match="localhost"):
        transcripts.check(page, tmp_path)


def test_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program("events.py", tmp_path)["main"]()
    page = (ROOT / "docs" / "events.md").read_text("utf-8")
    (printed,) = re.findall(r"^It prints\n\n```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert capsys.readouterr().out == printed
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert example == (ROOT / "examples" / "events.py").read_text("utf-8")
