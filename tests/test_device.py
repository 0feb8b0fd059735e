"""What device a request comes from."""

from __future__ import annotations

import pytest

from fastverify.device import device_from_request
from fastverify.transport import Incoming


def device(peer: str | None, proxies: int = 0, *forwarded: bytes, agent: bytes | None = None) -> dict[str, str]:
    headers = [(b"x-forwarded-for", value) for value in forwarded]
    return device_from_request(
        Incoming(headers + ([(b"user-agent", agent)] if agent is not None else [])), peer, proxies
    )


def test_what_is_not_known_is_left_out() -> None:
    assert device(None) == {}
    assert device("192.0.2.1", agent=b"Firefox") == {"user_agent": "Firefox", "address": "192.0.2.1"}
    assert device("", agent=b"") == {}


def test_a_user_agent_is_cut_off_where_it_is_no_honest_one() -> None:
    assert len(device(None, agent=b"x" * 4000)["user_agent"]) == 512
    assert device(None, agent=b"Ren\xe9") == {"user_agent": "Ren\xe9"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("/run/app.sock", None),
        ("unix:", None),
        ("unknown", None),
        ("<script>", None),
    ],
)
def test_an_address_is_one_or_is_left_out(text: str, address: str | None) -> None:
    expected = {} if address is None else {"address": address}
    assert device(text) == device(None, 1, text.encode()) == expected


def test_a_forwarded_address_counts_from_the_end_and_only_so_far_as_proxies_are_trusted() -> None:
    chain = b"6.6.6.6, 192.0.2.1 ,10.0.0.2"
    assert device("10.0.0.1", 0, chain) == {"address": "10.0.0.1"}
    assert device("10.0.0.1", 1, chain) == {"address": "10.0.0.2"}
    assert device("10.0.0.1", 2, chain) == {"address": "192.0.2.1"}
    assert device("10.0.0.1", 1, b"6.6.6.6", b"192.0.2.1") == {"address": "192.0.2.1"}, "several headers are one list"


def test_a_request_that_went_past_the_proxies_has_the_peers_address() -> None:
    assert device("192.0.2.9", 2, b"6.6.6.6") == {"address": "192.0.2.9"}
    assert device("192.0.2.9", 2) == {"address": "192.0.2.9"}
    assert device("192.0.2.9", 1, b"6.6.6.6,") == {"address": "192.0.2.9"}
