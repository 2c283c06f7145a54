"""The running gateway: where its admin listener is, and what it answers."""

import os
from http import HTTPStatus
from typing import Any, Final, NoReturn

import click
from pydantic import ValidationError

from devhost_server.admin.options import token_text
from devhost_server.admin.shapes import Shape
from devhost_server.cli.admin_client import AdminClient
from devhost_server.cli.options import given
from devhost_server.cli.output import fail
from devhost_server.cli.sources import chosen_sources, exit_with
from devhost_server.config import ConfigError, load_admin
from devhost_server.config.layers import gather
from devhost_server.options import Bind, parse_bind
from devhost_server.units import printable

# How long a gateway may take to answer (seconds).
READ_TIMEOUT: Final = 10.0


def ask(
    method: str, path: str, shape: type[Shape], refused: type[Shape] | None = None, timeout: float | None = None
) -> tuple[bool, Any]:
    """Send a request to the running gateway; return whether it succeeded, and the decoded answer.

    The answer to a success has to be of `shape`. A refusal (422) is an answer too if the shape `refused` is given.
    Anything else prints a sentence and exits with code 1. `timeout` is in seconds.
    """
    client = _client()
    status, answer = _call(client, method, path, timeout or READ_TIMEOUT)
    done = 200 <= status < 300
    expected = shape if done else refused if status == HTTPStatus.UNPROCESSABLE_ENTITY else None
    if expected is None:
        _exit_refused(client.bind, f"{method} {path}", status, answer)
    if not _is_of(expected, answer):
        fail(f"what answers on {client.bind} is not a devhost-server: its answer to {method} {path} is not one's")
    return done, answer


def _call(client: AdminClient, method: str, path: str, timeout: float) -> tuple[int, Any]:
    try:
        return client.call(method, path, timeout)
    except TimeoutError:
        fail(f"the gateway on {client.bind} did not answer within {timeout:g} s")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        # Where a layer could not be read, its admin.bind is not known either.
        fail(
            *_unread_layers(),
            f"no gateway answers on {client.bind} ({reason}); start one, or name its admin listener with --admin",
        )
    except (ValueError, RecursionError) as error:
        fail(f"what answers on {client.bind} is not a devhost-server: {printable(str(error))}")


def _exit_refused(bind: Bind, request: str, status: int, answer: Any) -> NoReturn:
    if status in (401, 403):
        fail(
            f"the gateway on {bind} wants a token that is not the admin.token of this configuration; "
            "give it with --token or DEVHOST_TOKEN"
        )
    detail = answer.get("detail") or answer.get("title") if isinstance(answer, dict) else None
    reason = f": {printable(str(detail))}" if detail else ""
    fail(f"the gateway on {bind} answered {status} to {request}{reason}")


def _unread_layers() -> list[str]:
    if "admin" in given():
        return []
    return [printable(str(problem)) for problem in gather(chosen_sources()).problems]


def _is_of(shape: type[Shape], answer: Any) -> bool:
    try:
        shape.model_validate(answer)
    except ValidationError:
        return False
    return True


def _client() -> AdminClient:
    """Return a client for the gateway that the options or the configuration name."""
    options = given()
    url, token = options.get("admin"), _given_token(options.get("token"))
    try:
        configured = load_admin(chosen_sources())
    except ConfigError as error:
        if url is None:
            exit_with(error)
        return AdminClient(_admin_url(url), token)
    token = token or configured.token
    if url is not None:
        return AdminClient(_admin_url(url), token)
    if configured.bind is None:
        fail("the configuration has no admin listener (admin.bind is null); name a running gateway's with --admin")
    return AdminClient(parse_bind(configured.bind), token)


def _given_token(option: str | None) -> str | None:
    """Return the token of the option, else of the environment, else None. Raises `BadParameter`."""
    name, token = ("--token", option) if option is not None else ("DEVHOST_TOKEN", os.environ.get("DEVHOST_TOKEN"))
    try:
        return token_text(token) if token else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=name) from None


def _admin_url(url: str) -> Bind:
    """Parse ``http://host:port``, ``host:port`` or ``unix:/path``. Raises `BadParameter`."""
    try:
        return parse_bind(url.removeprefix("http://").rstrip("/"))
    except ValueError:
        message = f"'{url}' is not an admin listener; write http://host:port or unix:/path"
        raise click.BadParameter(message, param_hint="--admin") from None
