"""One more API that only verifies: no secret, no framework, no write to the store.

uvicorn several_apis_files:app --port 8002  # http://files.example.test:8002
"""

import fastverify
from fastverify.adapters.asgi import SessionMiddleware, reply_app, require_session
from fastverify.transport import Rules, json_reply

STORE = "embedded:///tmp/fastverify-several-apis"  # or redis://localhost:6379/0
verifier = fastverify.SessionVerifier.connect(STORE, issuer="http://api.example.test:8000/auth", wait=0)
rules = Rules(anti_csrf="NONE", origins=["http://www.example.test:8000"])  # as the other APIs have it


async def files(scope, receive, send):
    if scope["type"] == "http":
        session = require_session(scope)
        await reply_app(json_reply(200, {"files of": session.user_id}))(scope, receive, send)


app = SessionMiddleware(files, verifier, rules=rules)
