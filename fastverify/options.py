"""What the operations that start a session take, as keyword arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypedDict, cast

from .session_claims import SessionClaim

#: Seconds for which a user acts as another one, unless told otherwise.
IMPERSONATION = 3600


class _Options(TypedDict, total=False):
    #: Kept on the server only; JSON.
    data: Any
    #: Default ``public``.
    tenant: str
    #: Shown when sessions are listed: user agent, address, or what else tells them apart; JSON.
    device: Mapping[str, Any] | None
    #: Seconds; this session's absolute lifetime, at most the configured one.
    lifetime: int | None
    #: Seconds; how long this session may go without a refresh, at most the configured time.
    idle_timeout: int | None
    #: Bind the session to an anti-CSRF token.
    anti_csrf: bool
    #: False: its cookies last until the browser is closed. Default True.
    remember: bool


class FlowOptions(_Options, total=False):
    """What the flow takes: claims have been built by then."""

    payload: Mapping[str, Any] | None
    login_id: str | None
    previous: str | None


class GuestOptions(_Options, total=False):
    """What ``guest`` takes besides the payload."""

    #: Session claims whose values are fetched, and put into the payload.
    claims: Iterable[SessionClaim]
    #: Handle of a session to end in the same call: the one that the client had before.
    previous: str | None


class ImpersonateOptions(TypedDict, total=False):
    """What ``impersonate`` takes besides the session and the user id."""

    #: Seconds that it lasts, however busy it is; at most a day, by default an hour.
    lifetime: int
    #: Why, for the audit log and the event; a printable line of at most 200 characters.
    reason: str
    #: As in ``CreateOptions``; ``act`` says who acts, whatever is given.
    payload: Mapping[str, Any] | None
    data: Any
    tenant: str
    login_id: str | None
    device: Mapping[str, Any] | None
    idle_timeout: int | None
    anti_csrf: bool
    remember: bool
    claims: Iterable[SessionClaim]


class PromoteOptions(_Options, total=False):
    """What ``promote`` takes besides the guest's session and the user id."""

    #: The application's claims; JSON. The client can read them. Names of the ten default claims are dropped.
    payload: Mapping[str, Any] | None
    #: The login method's id of the user (SuperTokens: recipe user id); default the user id.
    login_id: str | None
    #: Session claims whose values are fetched, and put into the payload.
    claims: Iterable[SessionClaim]
    #: The user has just shown who they are: ``auth_time`` in the payload says when (``authenticated_within``).
    authenticated: bool


class CreateOptions(PromoteOptions, total=False):
    """What ``create`` takes besides the user id."""

    #: Handle of a session to end in the same call: the one that the client had before.
    previous: str | None


class Impersonation(NamedTuple):
    """How long, and why."""

    lifetime: int
    reason: str

    @classmethod
    def taken_from(cls, options: ImpersonateOptions) -> tuple[Impersonation, PromoteOptions]:
        """These, and the options of a session that are left."""
        how = cls(options.pop("lifetime", IMPERSONATION), options.pop("reason", ""))
        return how, cast(PromoteOptions, options)
