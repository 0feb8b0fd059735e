"""The application in Django, in blocking views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from browser_parts import GOLD, OWN, PAGE, ROLES, SLOW, TIER, VERIFIED, VIP, Parts, account_page, account_page_after
from corsheaders.middleware import CorsMiddleware
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django_lab import MIDDLEWARE, OURS, make_handler

from fastverify import Sessions, TryRefreshToken, Unauthorised
from fastverify.adapters.django import FastVerify, session_required

fv = FastVerify()


def django_application(sessions: Sessions, parts: Parts, websites: list[str], cors: str | None) -> Any:
    """The application, and CORS middleware for websites above or below our own."""
    ours = MIDDLEWARE.index(OURS)
    place = {"before": ours, "after": ours + 1}.get(cors or "")
    chain = list(MIDDLEWARE)
    if place is not None:
        chain.insert(place, f"{__name__}.AllowSite")
    return make_handler(
        WSGIHandler,
        {"SESSIONS": sessions},
        [*_pages(parts), *_routes(parts)],
        chain,
        raising=lambda handler: handler,  # as on a server, where an error is a 500
        SITE_WEBSITES=websites,
    )


class AllowSite(CorsMiddleware):  # type: ignore[misc]  # it has no types
    """django-cors-headers for the websites of the site that is being made; its settings are the process's."""

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        super().__init__(get_response)
        self._websites = settings.SITE_WEBSITES

    def origin_found_in_white_lists(self, origin: str, url: Any) -> bool:
        return origin in self._websites


def _pages(parts: Parts) -> list[Any]:
    def account(request: Any) -> Any:
        try:
            session = fv.session(request)
        except (TryRefreshToken, Unauthorised) as error:
            return HttpResponse(account_page_after(error))
        return HttpResponse(account_page(session.user_id))

    return [
        path("", lambda request: HttpResponse(PAGE)),
        path("client.js", lambda request: HttpResponse(parts.scripts.website, content_type="text/javascript")),
        path("web-js.js", lambda request: HttpResponse(parts.scripts.web_js, content_type="text/javascript")),
        path("account", account),
        path("public", lambda request: JsonResponse({"hello": "anyone"})),
    ]


def _routes(parts: Parts) -> list[Any]:
    def sign_in(request: Any, user: str) -> Any:
        fv.sign_in(request, user, payload={"plan": "pro"})
        return JsonResponse({"welcome": user})

    def sign_in_for_now(request: Any, user: str) -> Any:
        fv.sign_in(request, user, payload={"plan": "pro"}, remember=False)
        return JsonResponse({"welcome": user})

    def begin_as_guest(request: Any, item: str) -> Any:
        return JsonResponse(fv.sign_in_guest(request, {"cart": [item]}).user_id, safe=False)

    def cart(session: Any) -> Any:
        return {"user": session.user_id, "guest": session.is_guest, "cart": session.payload["cart"]}

    def act_as(request: Any, user: str) -> Any:
        session = fv.impersonate(request, user, reason="a test")
        return JsonResponse({"user": session.user_id, "actor": session.actor})

    def return_to_own(request: Any) -> Any:
        session = fv.stop_impersonating(request)
        return JsonResponse({"user": session.user_id, "actor": session.actor})

    def actor(session: Any) -> Any:
        return {"user": session.user_id, "actor": session.actor}

    def me(session: Any) -> Any:
        return {"user": session.user_id, "handle": session.handle, "plan": session.payload["plan"]}

    def change_plan(session: Any, plan: str) -> Any:
        session.merge_payload({"plan": plan})
        return {"plan": session.payload["plan"]}

    def show(session: Any) -> Any:
        return session.user_id

    def promote(session: Any) -> Any:
        session.set_claim(TIER, "gold")
        return session.user_id

    def admit(session: Any) -> Any:
        session.set_claim(VERIFIED, True)
        session.set_claim(ROLES, ["member"])
        return session.user_id

    def write(session: Any) -> Any:
        parts.notes.append(session.user_id)
        return {"notes": len(parts.notes)}

    def slow(session: Any, when: str) -> Any:
        before, after = SLOW[when]
        if before:
            session.merge_payload(before)
        parts.gate.wait()
        if after:
            session.merge_payload(after)
        return session.user_id

    def move(session: Any, method: Any) -> Any:
        session.move_to(method)
        return session.user_id

    return [
        path("signin/<user>", csrf_exempt(sign_in)),
        path("signin-for-now/<user>", csrf_exempt(sign_in_for_now)),
        path("guest/<item>", csrf_exempt(begin_as_guest)),
        path("cart", _with_session(cart)),
        path("act-as/<user>", csrf_exempt(act_as)),
        path("return", csrf_exempt(return_to_own)),
        path("actor", _with_session(actor)),
        path("email", _with_session(show, validators=OWN)),
        path("me", _with_session(me)),
        path("plan/<plan>", _with_session(change_plan)),
        path("gold", _with_session(show, validators=GOLD)),
        path("promotion", _with_session(promote)),
        path("vip", _with_session(show, validators=VIP)),
        path("admission", _with_session(admit)),
        path("notes", _with_session(write)),
        path("slow/<when>", _with_session(slow)),
        path("move/<method>", _with_session(move)),
    ]


def _with_session(act: Callable[..., Any], **options: Any) -> Any:
    """A view that answers with what ``act`` makes of the session."""

    @csrf_exempt
    @session_required(**options)
    def view(request: Any, **kwargs: str) -> Any:
        return JsonResponse(act(request.fastverify.current, **kwargs), safe=False)

    return view
