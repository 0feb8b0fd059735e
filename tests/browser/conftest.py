"""Fixtures: the clients' scripts, Debian's Chromium, sites on the embedded store, tabs.

Browser, sites and tests share one event loop per module, so a test can reach into the manager that a site works with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from browser_site import Site
from browser_tools import find_tools
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from npm_client import NotInstalled, Scripts, client_scripts
from playwright.async_api import Browser, BrowserContext, async_playwright
from tab import Tab

CHROMIUM_ARGS = [
    "--no-sandbox",  # a container's root has no user namespaces; the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.fastverify.test 127.0.0.1, MAP *.elsewhere.test 127.0.0.1",
]
#: What a Site takes; the rest is Config's.
SITE_OPTIONS = {"framework", "host", "website", "more_websites", "cors", "certificate"}


@pytest.fixture(scope="session")
def scripts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scripts:
    """The clients' scripts, kept in pytest's cache."""
    kept = getattr(request.config, "cache", None)  # absent under -p no:cacheprovider
    cache: Path = kept.mkdir("browser-client") if kept else tmp_path_factory.mktemp("browser-client")
    try:
        return client_scripts(cache, find_tools().npm)
    except NotInstalled as problem:
        pytest.skip(f"the web clients could not be installed; a package registry must be in reach: {problem}")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for any host; contexts are told not to look at it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fastverify.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "site.pem"
    path.touch(0o600)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_tools().chromium, args=CHROMIUM_ARGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser profile without a past; its tabs share cookies and storage."""
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(15_000)
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def serve(
    embedded_url: str, unique_prefix: str, scripts: Scripts
) -> AsyncIterator[Callable[..., Awaitable[Site]]]:
    """``await serve(**options of Site, **settings of Config)`` runs a site until the test ends."""
    async with AsyncExitStack() as sites:

        async def start(*, store: str = embedded_url, **options: Any) -> Site:
            made = {name: options.pop(name) for name in SITE_OPTIONS & options.keys()}
            site = Site(store, unique_prefix, scripts, **made)
            sites.push_async_callback(site.stop)
            await site.start(**options)
            return site

        yield start


@pytest.fixture
def open_tab(context: BrowserContext) -> Callable[..., Awaitable[Tab]]:
    """``await open_tab(site, mode="cookie")`` shows the site's page in a new tab."""

    async def open(site: Site, mode: str = "cookie", **query: str) -> Tab:
        return await Tab.open(context, site.origin, mode=mode, **query)

    return open
