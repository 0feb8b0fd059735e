# cython: language_level=3, auto_pickle=False, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True
"""The compiled core: verifies tokens. No policy of sessions, no store, no HTTP but finding tokens among raw headers, no
clock but the coarse one.

Theory of operation
-------------------

A token takes one of two ways through `Verifier.verify`.

*Hot.* The token was verified before and lies in the verifier's cache. Its last sixteen characters, mixed with a random
seed, say where; the whole token is compared. What may have changed since is read again: the clock against ``exp``,
``nbf`` and ``iat``, the set of keys, the revocation table, and whether that table is still fresh. Nothing is allocated.

*Cold.* Each step is cheaper than those after it, and a token that fails goes no further::

    size -> dots -> base64url -> header -> allow-list -> key by kid and alg -> signature     nothing is believed
         -> JSON -> claims -> revoked? -> cache                                              what the signer said

Everything up to the signature works on the C stack and allocates nothing, so refusing garbage costs well under a
microsecond and an exception. Claims are read from the very buffer that was decoded from the signed bytes: there is no
second parser that could see another payload. `Claims` keeps that buffer and makes Python objects of its parts when
asked, afresh each time, which is what lets many callers share one cached object.

Signatures are checked by EVP, or for keys that allow it on a fast path that EVP keeps an eye on (signatures.pyx).

Refusals are numbers until the last moment (refusals.pyx). Every way out of libcrypto leaves its error queue empty
(algorithms.pyx).

Threads: from base64url to JSON a token needs no Python, and with release_gil that part runs without the GIL. All other
state is touched with the GIL held. On a free-threaded build, where there is none, each shared structure is touched in
the critical section of the object that owns it, and single numbers atomically (sharing.pyx).
"""

include "_core/refusals.pyx"  # numbers to exceptions
include "_core/sharing.pyx"  # atomic loads, stores and counts
include "_core/base64url.pyx"  # strict decoding into a caller's buffer
include "_core/json_text.pyx"  # strings and numbers
include "_core/json.pyx"  # one strict pass
include "_core/json_objects.pyx"  # Python objects of it, on demand
include "_core/algorithms.pyx"  # names, digests, libcrypto's particulars
include "_core/key_rules.pyx"  # which keys are refused
include "_core/inverse.pyx"  # modulo an odd number
include "_core/fast_ecdsa.pyx"  # ES256 with a table for the key
include "_core/fast_hmac.pyx"  # HMAC by states that are copied as memory
include "_core/fast_rsa.pyx"  # RSA and PSS by a Montgomery chain
include "_core/keys.pyx"  # prepared keys
include "_core/signatures.pyx"  # the check: EVP, fast paths, shadow checks
include "_core/tables.pyx"  # which keys get a table
include "_core/revoked.pyx"  # the revocation table
include "_core/jws.pyx"  # compact form, protected header, choice of the key
include "_core/claims.pyx"  # the Claims object; rules of time, issuer and audience
include "_core/cache.pyx"  # verified tokens
include "_core/verifier.pyx"  # all of it in order
include "_core/headers.pyx"  # what a request says about sessions
