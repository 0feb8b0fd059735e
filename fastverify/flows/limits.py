"""Numbers that flows go by."""

from __future__ import annotations

#: A refresh that reaches the primary later than this after its first trip does nothing (rotation.md section 3).
DEADLINE_MS = 2_000
#: How long it is one request's turn to exchange another issuer's refresh token (ms), and how long others wait (s).
TURN_MS, TURN_PATIENCE = 30_000, 10.0
#: One refresh token is redelivered at most so often in a row: a rendering storm is honest, a loop is not.
MAX_REDELIVERIES = 64
#: Handles that one script call ends at most.
BATCH = 500
NONCE_BYTES = 16
#: The longest that anybody may act as another user without saying so again, in seconds.
LONGEST_IMPERSONATION = 86_400
MAX_REASON = 200
#: For so long a promotion is remembered after the guest's session has ended (ms): a sign-in may be sent again.
HEIR_MS = 600_000
#: Events that one call returns at most.
MOST_EVENTS = 1_000
MAX_USER_ID = 256
