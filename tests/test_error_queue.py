"""libcrypto has one queue of errors per thread, and Python's `ssl` reads it too: what is left there breaks connections.

The queue that matters is that of the very libcrypto the core runs on. `dlsym` on the extension's own handle looks
through the libraries that this extension is linked to, so the functions found below are the ones it calls;
`openssl_info` confirms the version.
"""

from __future__ import annotations

import _ssl
import ctypes
import datetime
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from both_ways import has_fast_path
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from signing import ALGORITHMS, ISSUER, NOW, SigningKey, base64url, claims, header, make_key, sign

from fastverify import _core, errors
from fastverify._core import Key, Verifier, openssl_info
from fastverify.keys import KeySet


class ErrorQueue:
    """This thread's queue in the core's libcrypto."""

    def __init__(self) -> None:
        library = ctypes.CDLL(_core.__file__)
        self._peek, self._clear, self._fetch = library.ERR_peek_error, library.ERR_clear_error, library.EVP_MD_fetch
        self._peek.restype = ctypes.c_ulong
        self._fetch.restype = ctypes.c_void_p
        self._fetch.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
        library.OpenSSL_version.restype = ctypes.c_char_p
        self.version = library.OpenSSL_version(0).decode()

    @property
    def empty(self) -> bool:
        return self._peek() == 0

    @property
    def is_that_of_ssl(self) -> bool:
        """Whether Python's ssl runs on the same library."""
        try:
            theirs = ctypes.CDLL(_ssl.__file__).ERR_peek_error
        except AttributeError:
            return False
        return ctypes.cast(theirs, ctypes.c_void_p).value == ctypes.cast(self._peek, ctypes.c_void_p).value

    def clear(self) -> None:
        self._clear()

    def soil(self) -> None:
        """Leaves an error behind, as a careless caller would."""
        assert self._fetch(None, b"no such digest", None) is None


@pytest.fixture
def queue() -> Iterator[ErrorQueue]:
    try:
        queue = ErrorQueue()
    except AttributeError:
        pytest.skip(
            f"the core's libcrypto ({openssl_info()['linkage']}) shows no symbols: its error queue cannot be looked at"
        )
    queue.clear()
    yield queue
    queue.clear()


def test_the_queue_looked_at_is_the_one_the_core_runs_on(queue: ErrorQueue) -> None:
    assert queue.version == openssl_info()["running"]
    assert queue.empty
    queue.soil()
    assert not queue.empty


def bad_signatures(key: SigningKey) -> dict[str, bytes]:
    """Signatures that fail at different depths inside libcrypto."""
    good = key.sign(b"message")
    size = len(good)
    signatures = {
        "flipped": bytes([good[0] ^ 1]) + good[1:],
        "flipped_at_the_end": good[:-1] + bytes([good[-1] ^ 1]),
        "zeros": bytes(size),
        "ones": b"\xff" * size,
        "half_zero": good[: size // 2] + bytes(size - size // 2),
        "short": good[:-1],
        "long": good + b"\0",
        "empty": b"",
        "huge": bytes(16_384),
    }
    if key.algorithm.startswith(("RS", "PS")):
        n = key.private.public_key().public_numbers().n
        signatures |= {f"n{n_plus:+}": (n + n_plus).to_bytes(size, "big") for n_plus in (-1, 0, 1)}
    return signatures


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_empty_after_raw_verification_pass_or_fail(queue: ErrorQueue, algorithm: str, fast: bool) -> None:
    key = make_key(algorithm)
    verifying = key.verifying
    assert queue.empty
    assert verifying.prepare() is has_fast_path(algorithm)
    assert queue.empty
    assert verifying.verify(b"message", key.sign(b"message"), fast=fast)
    assert queue.empty
    for name, signature in bad_signatures(key).items():
        assert not verifying.verify(b"message", signature, fast=fast)
        assert queue.empty, name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_empty_after_tokens_pass_or_fail(queue: ErrorQueue, algorithm: str) -> None:
    key = make_key(algorithm)
    for release_gil, fast in ((True, True), (False, True), (False, False)):
        verifier = Verifier([key.verifying], issuer=ISSUER, release_gil=release_gil, fast_crypto=fast)
        verifier.prepare_keys()
        assert queue.empty
        good = sign(None, None, key)
        stem = good.rpartition(".")[0]
        tokens = [f"{stem}.{base64url(signature)}" for signature in bad_signatures(key).values()]
        tokens += [
            "",
            "a.b.c",
            "a.b.c.d.e",
            sign(header(key, alg="none"), None, key),
            sign(header(key, kid="unknown"), None, key),
        ]
        tokens += [sign(None, claims(exp=NOW), key), sign(None, b"foo", key)]
        for token in tokens:
            with pytest.raises(errors.InvalidToken):
                verifier.verify(token, now=NOW)
            assert queue.empty, token
        for _ in range(2):  # verified, then from the cache
            verifier.verify(good, now=NOW)
            assert queue.empty
        verifier.verify_jws(good)
        assert queue.empty
        outcomes = verifier.verify_many([*tokens, good], now=NOW)
        assert [isinstance(outcome, errors.InvalidToken) for outcome in outcomes] == [True] * len(tokens) + [False]
        assert queue.empty


BAD_KEYS: dict[str, Callable[[], object]] = {
    "rsa_small": lambda: Key.rsa("RS256", None, b"\xff" * 128, b"\1\0\1"),
    "rsa_composite_of_small_primes": lambda: Key.rsa("RS256", None, (3**1300).to_bytes(258, "big"), b"\1\0\1"),
    "rsa_exponent": lambda: Key.rsa("RS256", None, b"\xff" * 256, b"\3"),
    "rsa_empty": lambda: Key.rsa("PS256", None, b"", b""),
    "ec_off_curve": lambda: Key.ec("ES256", None, b"\1" * 32, b"\2" * 32),
    "ec_zero": lambda: Key.ec("ES384", None, bytes(48), bytes(48)),
    "ec_beyond_the_field": lambda: Key.ec("ES512", None, b"\xff" * 66, b"\xff" * 66),
    "ed25519_zero": lambda: Key.ed25519(None, bytes(32)),
    "ed25519_off_curve": lambda: Key.ed25519(None, (2).to_bytes(32, "little")),
    "ed25519_short": lambda: Key.ed25519(None, b"\1"),
    "hmac_short": lambda: Key.hmac("HS256", None, b"short"),
    "pem_garbage": lambda: KeySet.from_pem(
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", alg="RS256", kid="k"
    ),
    "pem_of_another_kind": lambda: KeySet.from_pem(make_key("ES256").pem, alg="RS256", kid="k"),
    "jwks_garbage": lambda: KeySet.from_jwks(b"{"),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_empty_after_a_refused_key(queue: ErrorQueue, case: str) -> None:
    with pytest.raises(errors.ConfigError):
        BAD_KEYS[case]()
    assert queue.empty


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_empty_after_an_accepted_key(queue: ErrorQueue, algorithm: str) -> None:
    make_key(algorithm).verifying  # noqa: B018
    KeySet.from_jwks({"keys": [make_key(algorithm).jwk]})
    assert queue.empty


# --- a live TLS connection in the same thread ---


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Server and client, trusting one throw-away certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder: Path = tmp_path_factory.mktemp("tls")
    chain = folder / "chain.pem"
    chain.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain)
    client = ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
    return server, client


class Connection:
    """Both ends of a TLS connection, in memory and in one thread, so that every step of it is a step of that thread."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, between: Callable[[], object]) -> None:
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.between = between
        self.client = client.wrap_bio(down, up, server_hostname="localhost")
        self.server = server.wrap_bio(up, down, server_side=True)
        waiting = [self.client, self.server]
        for _ in range(20):
            waiting = [end for end in waiting if not self._try(end.do_handshake)]
        assert waiting == []

    def _try(self, step: Callable[[], object]) -> bool:
        self.between()
        try:
            step()
        except ssl.SSLWantReadError:
            return False
        return True

    def exchange(self, text: bytes) -> None:
        """There and back; each end is also read while nothing has come, where it must say "want read", nothing else."""
        for sender, receiver in ((self.client, self.server), (self.server, self.client)):
            assert not self._try(lambda receiver=receiver: receiver.read(1))
            self.between()
            sender.write(text)
            self.between()
            assert receiver.read(len(text)) == text


def failing(algorithms: tuple[str, ...]) -> Callable[[], None]:
    """One failing verification, another each time; on the fast paths where there are any."""
    steps = []
    for algorithm in algorithms:
        key = make_key(algorithm)
        verifier = Verifier([key.verifying], issuer=ISSUER)
        verifier.prepare_keys()
        stem = sign(None, None, key).rpartition(".")[0]
        steps += [
            (verifier, f"{stem}.{base64url(signature)}") for signature in bad_signatures(key).values() if signature
        ]
    turn = 0

    def fail() -> None:
        nonlocal turn
        verifier, token = steps[turn % len(steps)]
        turn += 1
        try:
            verifier.verify(token, now=NOW)
        except errors.InvalidToken:
            return
        raise AssertionError("a bad token was accepted")

    return fail


def test_tls_connection_survives_thousands_of_failed_verifications(
    queue: ErrorQueue, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    calls = 0
    fail = failing(ALGORITHMS)

    def between() -> None:
        nonlocal calls
        calls += 1
        fail()

    connection = Connection(*contexts, between)
    for number in range(600):
        connection.exchange(b"message %d" % number)
    assert calls > 3000
    assert queue.empty


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_tls_connection_survives_a_million_failed_verifications(
    queue: ErrorQueue, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """Each is checked to leave nothing behind; the connection is used after every hundred."""
    fail = failing(ALGORITHMS)
    connection = Connection(*contexts, lambda: None)
    for number in range(10_000):
        for _ in range(100):
            fail()
            assert queue.empty
        connection.exchange(b"message %d" % number)


def test_tls_connections_come_up_amid_failed_verifications(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    fail = failing(ALGORITHMS)
    for _ in range(20):
        Connection(*contexts, fail).exchange(b"hello")


def test_a_left_over_error_does_break_the_connection(
    queue: ErrorQueue, contexts: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """That the tests above can fail: the same with one error left behind."""
    if not queue.is_that_of_ssl:
        pytest.skip("Python's ssl runs on another libcrypto than the core")
    connection = Connection(*contexts, lambda: None)
    connection.exchange(b"hello")
    connection.between = queue.soil
    with pytest.raises(ssl.SSLError) as caught:
        connection.exchange(b"hello")
    assert not isinstance(caught.value, ssl.SSLWantReadError)


def test_queue_of_every_thread_is_empty(queue: ErrorQueue) -> None:
    key = make_key("RS256")
    verifying, bad = key.verifying, list(bad_signatures(key).values())
    left: list[bool] = []

    def work() -> None:
        for number in range(50):
            for signature in bad:
                verifying.verify(b"message", signature, fast=number % 2 == 1)
                left.append(queue.empty)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(left) == 4 * 50 * len(bad) and all(left)
