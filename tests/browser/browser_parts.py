"""What the applications of all frameworks have in common, and the names of their routes.

::

    GET  /  /client.js  /web-js.js      a page with the web client on it
    GET  /public                        for anybody
    POST /signin/<user>                 and /signin-for-now/<user>, which forgets when the browser is closed
    POST /guest/<item>                  starts a guest's session with something in its cart; GET /cart shows it
    GET  /me                            who it is
    POST /act-as/<user>                 impersonates; POST /return goes back, GET /actor tells
    POST /email                         not by somebody who acts as another user
    POST /plan/<plan>                   changes the payload
    GET  /gold  /vip                    only with such claims; POST /promotion  /admission  gives them
    POST /notes                         a write
    POST /slow/<when>                   takes its time (Gate); changes the payload "before" or "after" it, or "never"
    POST /move/<method>                 lets the session go on by "cookie" or "header"
    GET  /account                       a page rendered on the server
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from npm_client import Scripts

from fastverify import BooleanClaim, PrimitiveArrayClaim, PrimitiveClaim, TryRefreshToken, not_impersonated

PAGE = Path(__file__).with_name("page.html").read_bytes()
#: Everybody is silver until promoted.
TIER = PrimitiveClaim("tier", lambda *whose: "silver")
#: Nobody is verified, and all are guests, until admitted.
VERIFIED = BooleanClaim("verified", lambda *whose: False)
ROLES = PrimitiveArrayClaim("roles", lambda *whose: ["guest"])
GOLD = [TIER.has_value("gold")]
OWN = [not_impersonated()]
VIP = [VERIFIED.is_true(), ROLES.includes("member"), ROLES.excludes("guest")]
#: ``when`` of ``/slow/<when>`` -> the payload that is merged before the gate, and after it.
SLOW: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "never": ({}, {}),
    "before": ({"plan": "slow"}, {}),
    "after": ({}, {"plan": "slow"}),
}


class Gate:
    """Where a slow request waits until the test lets it go on."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self._open = threading.Event()

    def wait(self) -> None:
        self.arrived.set()
        assert self._open.wait(30), "nobody has opened the gate"

    def open(self) -> None:
        self._open.set()


@dataclass
class Parts:
    """What an application is made of beside its sessions."""

    scripts: Scripts
    #: Who wrote a note.
    notes: list[str] = field(default_factory=list)
    gate: Gate = field(default_factory=Gate)


def account_page(user: str | None) -> str:
    """A page that was rendered for a user; or for nobody, whom it asks to sign in."""
    return f"<!doctype html><p id=user>{escape(user or 'nobody')}</p>"


def account_page_after(error: Exception) -> str:
    """The page where there is no session: an expired token is renewed by the client, which then asks again."""
    if not isinstance(error, TryRefreshToken):
        return account_page(None)
    return """<!doctype html>
        <script src="/client.js"></script>
        <script>
            supertokens.init({ apiDomain: location.origin });
            supertokens.attemptRefreshingSession().then(() => location.reload());
        </script>"""
