"""The small application in Django, blocking and asynchronous, and in Django REST framework."""

from __future__ import annotations

import json
from typing import Any

from blocking_sites import IS_PRO, PLAN, act_on_claims
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django_lab import make_handler
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from sites import IS_PRO as IS_PRO_ASYNC
from sites import PLAN as PLAN_ASYNC
from sites import act_on_claims as act_on_claims_async
from sites import and_fresh, described, shown

from fastverify import AsyncSessions, Sessions, Unauthorised, not_guest, not_impersonated
from fastverify.adapters.django import FastVerify, session_required
from fastverify.adapters.drf import SessionAuthentication

fv = FastVerify()


def django_sync_site(sessions: Sessions, **options: Any) -> Any:
    """The application in blocking Django."""
    return make_handler(WSGIHandler, given(sessions, options), BLOCKING_URLS)


def django_async_site(sessions: AsyncSessions, **options: Any) -> Any:
    """The application in asynchronous Django."""
    return make_handler(ASGIHandler, given(sessions, options), ASYNC_URLS)


def drf_site(sessions: Sessions, **options: Any) -> Any:
    """The application in Django REST framework."""
    return make_handler(WSGIHandler, given(sessions, options), DRF_URLS)


def given(sessions: Any, options: dict[str, Any]) -> dict[str, Any]:
    return {"SESSIONS": sessions} | {name.upper(): value for name, value in options.items()}


# --- blocking views ---


def login(request: Any) -> Any:
    fv.sign_in(request, request.GET["user"], payload=json.loads(request.GET.get("payload", "{}")))
    return JsonResponse({"ok": True})


def login_for_now(request: Any) -> Any:
    fv.sign_in(request, request.GET["user"], remember=False)
    return JsonResponse({"ok": True})


def login_beside(request: Any) -> Any:
    fv.sign_in(request, request.GET["user"], previous=None)
    return JsonResponse({"ok": True})


def impersonate(request: Any) -> Any:
    return JsonResponse(described(fv.impersonate(request, request.GET["user"], reason="ticket 7")))


def return_(request: Any) -> Any:
    return JsonResponse(described(fv.stop_impersonating(request)))


def guest(request: Any) -> Any:
    return JsonResponse(described(fv.sign_in_guest(request, json.loads(request.GET.get("payload", "{}")))))


def login_and_fail(request: Any) -> Any:
    fv.sign_in(request, request.GET["user"])
    raise Unauthorised("after all")


def login_with_claims(request: Any) -> Any:
    fv.sign_in(request, request.GET["user"], claims=[PLAN], authenticated=True)
    return JsonResponse({"ok": True})


def show(request: Any) -> Any:
    return JsonResponse(described(request.fastverify.current))


def maybe(request: Any) -> Any:
    return JsonResponse(described(fv.session(request, required=False)))


def fresh(request: Any) -> Any:
    return JsonResponse(described(fv.session(request, validators=and_fresh)))


@session_required(validators=[])
def claims(request: Any) -> Any:
    return JsonResponse(act_on_claims(request.fastverify.current, **request.GET.dict()))


@session_required()
def move(request: Any) -> Any:
    request.fastverify.current.move_to(request.GET["to"])
    return show(request)


@session_required()
def merge(request: Any) -> Any:
    request.fastverify.current.merge_payload(json.loads(request.GET["patch"]))
    return show(request)


@session_required()
def revoke(request: Any) -> Any:
    return JsonResponse({"was_there": request.fastverify.current.revoke()})


@session_required()
def data(request: Any) -> Any:
    session = request.fastverify.current
    if "put" in request.GET:
        session.set_data(request.GET["put"])
    return JsonResponse({"data": session.get_data()})


@session_required()
def sessions(request: Any) -> Any:
    return JsonResponse({"sessions": [shown(info) for info in request.fastverify.current.list_sessions()]})


@session_required()
def revoke_others(request: Any) -> Any:
    return JsonResponse({"ended": request.fastverify.current.revoke_others()})


@session_required()
def revoke_one(request: Any) -> Any:
    return JsonResponse({"was_there": request.fastverify.current.revoke_one(request.GET["handle"])})


def device(request: Any) -> Any:
    return JsonResponse(fv.device(request))


def own_refresh(request: Any) -> Any:
    return JsonResponse(described(fv.refresh(request)))


def own_signout(request: Any) -> Any:
    fv.sign_out(request)
    return JsonResponse({"ok": True})


BLOCKING_URLS = [
    path(name, csrf_exempt(view))
    for name, view in {
        "login": login,
        "login-for-now": login_for_now,
        "login-beside": login_beside,
        "impersonate": impersonate,
        "return": return_,
        "own": session_required(validators=[not_impersonated()])(show),
        "guest": guest,
        "member": session_required(validators=[not_guest()])(show),
        "login-and-fail": login_and_fail,
        "login-with-claims": login_with_claims,
        "pro": session_required(validators=[IS_PRO])(show),
        "fresh": fresh,
        "unchecked": session_required(validators=[])(show),
        "claims": claims,
        "move": move,
        "me": session_required()(show),
        "maybe": maybe,
        "strict": session_required(strict=True)(show),
        "lenient": session_required(strict=False)(show),
        "unguarded": session_required(check_anti_csrf=False)(show),
        "merge": merge,
        "revoke": revoke,
        "data": data,
        "sessions": sessions,
        "revoke-others": revoke_others,
        "revoke-one": revoke_one,
        "device": device,
        "own-refresh": own_refresh,
        "own-signout": own_signout,
    }.items()
]


# --- asynchronous views ---


async def alogin(request: Any) -> Any:
    await fv.sign_in(request, request.GET["user"], payload=json.loads(request.GET.get("payload", "{}")))
    return JsonResponse({"ok": True})


async def alogin_for_now(request: Any) -> Any:
    await fv.sign_in(request, request.GET["user"], remember=False)
    return JsonResponse({"ok": True})


async def alogin_beside(request: Any) -> Any:
    await fv.sign_in(request, request.GET["user"], previous=None)
    return JsonResponse({"ok": True})


async def aimpersonate(request: Any) -> Any:
    return JsonResponse(described(await fv.impersonate(request, request.GET["user"], reason="ticket 7")))


async def areturn(request: Any) -> Any:
    return JsonResponse(described(await fv.stop_impersonating(request)))


async def aguest(request: Any) -> Any:
    return JsonResponse(described(await fv.sign_in_guest(request, json.loads(request.GET.get("payload", "{}")))))


async def alogin_and_fail(request: Any) -> Any:
    await fv.sign_in(request, request.GET["user"])
    raise Unauthorised("after all")


async def alogin_with_claims(request: Any) -> Any:
    await fv.sign_in(request, request.GET["user"], claims=[PLAN_ASYNC], authenticated=True)
    return JsonResponse({"ok": True})


async def ashow(request: Any) -> Any:
    return JsonResponse(described(request.fastverify.current))


async def amaybe(request: Any) -> Any:
    return JsonResponse(described(await fv.session(request, required=False)))


async def afresh(request: Any) -> Any:
    return JsonResponse(described(await fv.session(request, validators=and_fresh)))


@session_required(validators=[])
async def aclaims(request: Any) -> Any:
    return JsonResponse(await act_on_claims_async(request.fastverify.current, **request.GET.dict()))


@session_required()
async def amove(request: Any) -> Any:
    await request.fastverify.current.move_to(request.GET["to"])
    return await ashow(request)


@session_required()
async def amerge(request: Any) -> Any:
    await request.fastverify.current.merge_payload(json.loads(request.GET["patch"]))
    return await ashow(request)


@session_required()
async def arevoke(request: Any) -> Any:
    return JsonResponse({"was_there": await request.fastverify.current.revoke()})


@session_required()
async def adata(request: Any) -> Any:
    session = request.fastverify.current
    if "put" in request.GET:
        await session.set_data(request.GET["put"])
    return JsonResponse({"data": await session.get_data()})


@session_required()
async def asessions(request: Any) -> Any:
    return JsonResponse({"sessions": [shown(info) for info in await request.fastverify.current.list_sessions()]})


@session_required()
async def arevoke_others(request: Any) -> Any:
    return JsonResponse({"ended": await request.fastverify.current.revoke_others()})


@session_required()
async def arevoke_one(request: Any) -> Any:
    return JsonResponse({"was_there": await request.fastverify.current.revoke_one(request.GET["handle"])})


async def adevice(request: Any) -> Any:
    return JsonResponse(fv.device(request))


async def aown_refresh(request: Any) -> Any:
    return JsonResponse(described(await fv.refresh(request)))


async def aown_signout(request: Any) -> Any:
    await fv.sign_out(request)
    return JsonResponse({"ok": True})


ASYNC_URLS = [
    path(name, csrf_exempt(view))
    for name, view in {
        "login": alogin,
        "login-for-now": alogin_for_now,
        "login-beside": alogin_beside,
        "impersonate": aimpersonate,
        "return": areturn,
        "own": session_required(validators=[not_impersonated()])(ashow),
        "guest": aguest,
        "member": session_required(validators=[not_guest()])(ashow),
        "login-and-fail": alogin_and_fail,
        "login-with-claims": alogin_with_claims,
        "pro": session_required(validators=[IS_PRO_ASYNC])(ashow),
        "fresh": afresh,
        "unchecked": session_required(validators=[])(ashow),
        "claims": aclaims,
        "move": amove,
        "me": session_required()(ashow),
        "maybe": amaybe,
        "strict": session_required(strict=True)(ashow),
        "lenient": session_required(strict=False)(ashow),
        "unguarded": session_required(check_anti_csrf=False)(ashow),
        "merge": amerge,
        "revoke": arevoke,
        "data": adata,
        "sessions": asessions,
        "revoke-others": arevoke_others,
        "revoke-one": arevoke_one,
        "device": adevice,
        "own-refresh": aown_refresh,
        "own-signout": aown_signout,
    }.items()
]


# --- views of Django REST framework ---


def for_anybody(view: Any) -> Any:
    """A view that looks at no session before it runs."""
    return api_view(["GET", "POST"])(authentication_classes([])(view))


def for_members(view: Any) -> Any:
    return api_view(["GET", "POST"])(permission_classes([IsAuthenticated])(view))


def for_members_with(view: Any, **how: Any) -> Any:
    """A view for members, with an authentication class of its own."""
    of_its_own = type("OfItsOwn", (SessionAuthentication,), how)

    def own_view(request: Any) -> Any:  # the decorators write on what they get
        return view(request)

    return for_members(authentication_classes([of_its_own])(own_view))


def drf_show(request: Any) -> Any:
    assert request.auth is request.fastverify.current and request.user.pk == request.auth.user_id
    return Response(described(request.auth))


def drf_maybe(request: Any) -> Any:
    return Response(described(request.auth))


def drf_login(request: Any) -> Any:
    fv.sign_in(request, request.query_params["user"], payload=json.loads(request.query_params.get("payload", "{}")))
    return Response({"ok": True})


def drf_claims(request: Any) -> Any:
    return Response(act_on_claims(request.auth, **request.query_params.dict()))


def drf_move(request: Any) -> Any:
    request.auth.move_to(request.query_params["to"])
    return Response(described(request.auth))


def drf_merge(request: Any) -> Any:
    request.auth.merge_payload(json.loads(request.query_params["patch"]))
    return Response(described(request.auth))


def drf_revoke(request: Any) -> Any:
    return Response({"was_there": request.auth.revoke()})


def drf_data(request: Any) -> Any:
    if "put" in request.query_params:
        request.auth.set_data(request.query_params["put"])
    return Response({"data": request.auth.get_data()})


def drf_sessions(request: Any) -> Any:
    return Response({"sessions": [shown(info) for info in request.auth.list_sessions()]})


def drf_revoke_others(request: Any) -> Any:
    return Response({"ended": request.auth.revoke_others()})


def drf_revoke_one(request: Any) -> Any:
    return Response({"was_there": request.auth.revoke_one(request.query_params["handle"])})


DRF_URLS = [
    path("login", for_anybody(drf_login)),
    path("login-for-now", for_anybody(login_for_now)),
    path("login-beside", for_anybody(login_beside)),
    path("impersonate", for_anybody(impersonate)),
    path("return", for_anybody(return_)),
    path("own", for_members_with(drf_show, validators=[not_impersonated()])),
    path("guest", for_anybody(guest)),
    path("member", for_members_with(drf_show, validators=[not_guest()])),
    path("login-and-fail", for_anybody(login_and_fail)),
    path("login-with-claims", for_anybody(login_with_claims)),
    path("pro", for_members_with(drf_show, validators=[IS_PRO])),
    path("fresh", for_members_with(drf_show, validators=and_fresh)),
    path("unchecked", for_members_with(drf_show, validators=[])),
    path("claims", for_members_with(drf_claims, validators=[])),
    path("move", for_members(drf_move)),
    path("me", for_members(drf_show)),
    path("maybe", api_view(["GET", "POST"])(drf_maybe)),
    path("strict", for_members_with(drf_show, strict=True)),
    path("lenient", for_members_with(drf_show, strict=False)),
    path("unguarded", for_anybody(session_required(check_anti_csrf=False)(show))),
    path("merge", for_members(drf_merge)),
    path("revoke", for_members(drf_revoke)),
    path("data", for_members(drf_data)),
    path("sessions", for_members(drf_sessions)),
    path("revoke-others", for_members(drf_revoke_others)),
    path("revoke-one", for_members(drf_revoke_one)),
    path("device", for_anybody(device)),
    path("own-refresh", for_anybody(own_refresh)),
    path("own-signout", for_anybody(own_signout)),
]


def django_answer(status: int, content: Any) -> JsonResponse:
    """What a hook returns in Django."""
    return JsonResponse(content, status=status)


DJANGO_ANSWERS = dict.fromkeys(("django-sync", "django-async", "drf"), django_answer)
DJANGO_SITES: dict[str, Any] = {"django-async": django_async_site}
BLOCKING_DJANGO_SITES: dict[str, Any] = {"django-sync": django_sync_site, "drf": drf_site}
