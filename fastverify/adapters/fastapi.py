"""Sessions for FastAPI.

::

    fv = FastVerify(sessions)
    fv.install(app)                         # before or after CORSMiddleware is added

    @app.get("/me")
    async def me(session: Annotated[RequestSession, Depends(fv.session())]): ...

A FastAPI application is a Starlette application; beside the dependency, everything is as ``adapters.starlette`` has it.
"""

# No postponed annotations: FastAPI reads those of the dependencies, which name local variables.

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.openapi.models import SecurityBase as Scheme
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from ..session_claims import RouteValidators
from ..transport import cors_headers
from . import starlette
from .asgi import RequestSession

__all__ = ["FastVerify", "RequestSession", "cors_headers"]


class FastVerify(starlette.FastVerify):
    """Sessions for one FastAPI application; arguments and errors as ``starlette.FastVerify``."""

    def session(
        self,
        *,
        required: bool = True,
        check_anti_csrf: bool | None = None,
        strict: bool | None = None,
        validators: RouteValidators | None = None,
    ) -> Callable[..., Awaitable[RequestSession | None]]:
        """A dependency: the session of the request, or of a WebSocket handshake.

        Args:
            required: False: None where no session's token came.
            check_anti_csrf: whether a cookie needs its proof against CSRF; None: for every method but GET.
            strict: also ask the store whether the session lives; None: as the application says.
            validators: of its claims: a list in the place of the application's, or a function of these and the session
                that returns one.
        """

        # Named at run time: the cookie's name is configured.
        cookie_scheme = _Declared("fastverifyCookie", _cookie_model(self._sessions.config.access_cookie_name))

        async def session(
            connection: HTTPConnection,
            _bearer: Annotated[None, Depends(_BEARER)],
            _cookie: Annotated[None, Depends(cookie_scheme)],
        ) -> RequestSession | None:
            return await self.session_of(
                connection, required=required, check_anti_csrf=check_anti_csrf, strict=strict, validators=validators
            )

        return session


class _Declared(SecurityBase):
    """A security scheme that is only declared, for OpenAPI; tokens are read and refused elsewhere."""

    def __init__(self, name: str, model: Scheme) -> None:
        self.scheme_name = name
        self.model = model

    async def __call__(self) -> None:
        return None


_BEARER = _Declared("fastverifyHeader", HTTPBearer(bearerFormat="JWT"))


def _cookie_model(name: str) -> Scheme:
    return APIKey.model_validate({"in": APIKeyIn.cookie, "name": name})
