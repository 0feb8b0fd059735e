"""The commands. Options have environment variables ``FASTVERIFY_*``: the service reads these, the library does not."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from ..config import Config
from ..errors import ConfigError

app = typer.Typer(
    name="fastverify",
    help="Sessions verified in process, on Redis or Valkey.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a decorated traceback shows local variables, and these may be secrets
)


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Stop after the report.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    port: Annotated[int, typer.Option(help="Of the demo site; 0: any free one.")] = 0,
) -> None:
    """Start a store, the session service and a demo site; show that they work; serve until Ctrl-C."""
    from .demo.run import run_demo

    raise typer.Exit(run_demo(once=once, as_json=as_json, port=port))


@app.command()
def serve(
    secret: Annotated[
        str,
        typer.Option(
            envvar="FASTVERIFY_SECRET",
            show_envvar=True,
            help="64 hexadecimal digits or more; several with commas between, the current one first.",
        ),
    ],
    store: Annotated[
        str | None,
        typer.Option(envvar="FASTVERIFY_STORE", help="URL of the store. [default: embedded, in .fastverify]"),
    ] = None,
    host: Annotated[str, typer.Option(envvar="FASTVERIFY_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="FASTVERIFY_PORT")] = 8000,
    api_domain: Annotated[
        str | None, typer.Option(envvar="FASTVERIFY_API_DOMAIN", help="[default: the address that is served]")
    ] = None,
    website_domain: Annotated[
        str | None, typer.Option(envvar="FASTVERIFY_WEBSITE_DOMAIN", help="[default: --api-domain]")
    ] = None,
    api_base_path: Annotated[str, typer.Option(envvar="FASTVERIFY_API_BASE_PATH")] = "/auth",
    key_prefix: Annotated[str, typer.Option(envvar="FASTVERIFY_KEY_PREFIX")] = "fv",
    access_token_lifetime: Annotated[
        int, typer.Option(envvar="FASTVERIFY_ACCESS_TOKEN_LIFETIME", help="Seconds.")
    ] = 3600,
    exchange_seconds: Annotated[int, typer.Option(envvar="FASTVERIFY_EXCHANGE_SECONDS", help="Seconds.")] = 10,
    listen_fd: Annotated[int | None, typer.Option("--fd", help="A listening socket to take over.")] = None,
    exit_with_stdin: Annotated[
        bool, typer.Option("--exit-with-stdin", help="Stop when standard input ends: for a parent that may be killed.")
    ] = False,
) -> None:
    """Serve the session routes and the gateway endpoint /v1/verify."""
    from .serving import listen, serve_service

    api_domain = api_domain or f"http://{host}:{port}"
    config = Config(
        api_domain=api_domain,
        website_domain=website_domain or api_domain,
        secret=parse_secret(secret),
        api_base_path=api_base_path,
        key_prefix=key_prefix,
        access_token_lifetime=access_token_lifetime,
        exchange_seconds=exchange_seconds,
    )
    store = store or f"embedded://{Path('.fastverify').resolve()}"
    with listen(host, port) if listen_fd is None else socket.socket(fileno=listen_fd) as sock:
        if listen_fd is None:
            typer.echo(f"the session service of {api_domain} listens on {host}, port {port}", err=True)
        serve_service(store, config, sock, exit_with_stdin=exit_with_stdin)


def parse_secret(text: str) -> list[bytes]:
    """Hexadecimal secrets with commas between.

    Raises:
        ConfigError: not hexadecimal.
    """
    try:
        return [bytes.fromhex(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError("secret", "must be hexadecimal digits, for example from: openssl rand -hex 32") from None
