"""Another service verifies what the first one signs. All that it knows of it is a URL.

uvicorn other_service:app --port 8001
"""

from typing import Annotated

from fastapi import FastAPI, Header, HTTPException

import fastverify

keys = fastverify.RemoteKeySet("http://localhost:8000/auth/jwt/jwks.json")
verifier = fastverify.Verifier(keys, issuer="http://localhost:8000/auth")
app = FastAPI()


@app.get("/reports")
async def reports(authorization: Annotated[str, Header()] = ""):
    try:
        claims = verifier.verify(authorization.removeprefix("Bearer "))  # no I/O, so it may be called anywhere
    except fastverify.InvalidToken as error:
        raise HTTPException(401, error.code) from None
    if "reports" not in claims["scope"]:
        raise HTTPException(403)
    return {"for": claims.subject}
