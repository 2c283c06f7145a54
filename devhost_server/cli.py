"""The command line.

``devhost-server`` alone is ``devhost-server run``. Global options may stand before or after the verb. Verbs that read a
running gateway, or tell it something, do so through its admin listener.

Exit codes: 0 done; 1 bad configuration, failed start or no answer; 2 usage; 3 (of `run`) something was cut.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import zip_longest
from typing import Any, Final, NoReturn, TextIO, cast

import click
from pydantic import ValidationError

from devhost_server import __version__
from devhost_server.admin import shapes
from devhost_server.admin.options import token_text
from devhost_server.admin.shapes import Shape
from devhost_server.config import ConfigError, Loaded, Settings, Sources, load, load_admin
from devhost_server.config.hints import suggestion
from devhost_server.config.layers import gather
from devhost_server.config.problems import Problem
from devhost_server.config.schema import json_schema
from devhost_server.config.show import differences, flat, in_effect, placer, select, to_yaml
from devhost_server.options import Bind, parse_bind
from devhost_server.processes.identity import Identity, IdentityError
from devhost_server.secrecy import masked
from devhost_server.units import printable, render_duration
from devhost_server.upstream.options import UpstreamTimeouts

# How long a gateway may take to answer. A reload is done when every worker serves it, which a busy machine delays.
READ_TIMEOUT: Final = 10.0
RELOAD_TIMEOUT: Final = 60.0
# How writing to stdout or stderr fails, but for a pipe that nobody reads any more.
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})

HELP: Final = """\
A team-shared staging gateway: routes hosts and paths to upstreams, and says why when one is down.

Without a command, it runs: in the foreground, logs to stderr, access log to stdout.
"""
EPILOG: Final = """\
Variables: DEVHOST_ENV, DEVHOST_CONFIG_DIR, DEVHOST_TOKEN, DEVHOST_MAX_CONNS, DEVHOST__SECTION__KEY=value for any key,
NO_COLOR.
"""


# --- options ---------------------------------------------------------------------------------------------------------


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep a global option for the verb: of one given before and after it the later wins, repeatable ones add up."""
    kept = ctx.find_root().ensure_object(dict)
    name = str(param.name)
    if isinstance(value, tuple):
        kept[name] = (*kept.get(name, ()), *value)
    elif value is not None:
        kept[name] = value


def _remember_assignments(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    for assignment in value:
        key, equals, _ = assignment.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"'{assignment}' is not understood; write key.path=value")
    _remember(ctx, param, value)


def _global_options() -> list[click.Parameter]:
    def option(*names: str, callback: Any = _remember, **attributes: Any) -> click.Option:
        return click.Option(names, callback=callback, expose_value=False, **attributes)

    places = "$DEVHOST_CONFIG_DIR, else ./config, else /etc/devhost-server, else what is packaged"
    return [
        option("--env", metavar="NAME", help="Environment.  [default: $DEVHOST_ENV, else dev]"),
        option("--config-dir", metavar="DIR", help=f"Folder of the configuration.  [default: {places}]"),
        option("-c", "--config", metavar="FILE", multiple=True, help="Read this file instead; repeatable."),
        option(
            "--set",
            metavar="KEY=VALUE",
            multiple=True,
            callback=_remember_assignments,
            help="Set a key, as in server.workers=2; repeatable.",
        ),
        option("--token", metavar="TOKEN", help="Token for it.  [default: $DEVHOST_TOKEN, else admin.token]"),
        option("--admin", metavar="URL", help="Admin listener of the running gateway.  [default: admin.bind]"),
    ]


class Verb(click.Command):
    """A command that takes the global options too."""

    def __init__(self, name: str, *, params: list[click.Parameter] | None = None, **attributes: Any) -> None:
        super().__init__(name, params=[*(params or []), *_global_options()], **attributes)


class Verbs(click.Group):
    """A group of verbs that takes the global options too."""

    command_class = Verb

    def __init__(self, name: str, *, params: list[click.Parameter] | None = None, **attributes: Any) -> None:
        super().__init__(name, params=[*(params or []), *_global_options()], **attributes)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="devhost-server", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Remember the global options; without a verb, run."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if ctx.invoked_subcommand is None:
        ctx.invoke(run)


class _Stdout:
    """Standard output that nobody has to read to its end: `devhost-server routes | head -1` is no failure."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write; what nobody reads any more goes nowhere."""
        with self._until_nobody_reads():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, likewise."""
        with self._until_nobody_reads():
            self._stream.flush()

    @contextlib.contextmanager
    def _until_nobody_reads(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # What is in the buffer goes there too, when the interpreter ends.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def main() -> None:
    """Run the command line."""
    sys.stdout = cast("TextIO", _Stdout(sys.stdout))
    try:
        cli(prog_name="devhost-server")
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _give_up_output(error)


def _give_up_output(error: OSError) -> NoReturn:
    """End with a sentence, if even that can be written."""
    with contextlib.suppress(OSError):
        click.echo(f"the output cannot be written: {(error.strerror or str(error)).lower()}", err=True)
    # What is left in the buffers would fail once more when the interpreter ends, which makes a report and a code of it.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.exit(1)


# --- what files are enough for ---------------------------------------------------------------------------------------


def _sources() -> Sources:
    given: Mapping[str, Any] = click.get_current_context().find_root().ensure_object(dict)
    named = (given.get("env"), given.get("config_dir"), given.get("config", ()), given.get("set", ()))
    try:
        return Sources.from_options(*named)
    except FileNotFoundError:
        places = given.get("config") or [given.get("config_dir") or os.environ.get("DEVHOST_CONFIG_DIR") or ""]
        if not all(map(os.path.isabs, places)):
            _fail("the working directory is gone; change to one that is there, or name the folder by its whole path")
        os.chdir("/")  # nothing is looked for from there, and libraries ask where they are
        return Sources.from_options(*named)


def _fail(*lines: str) -> NoReturn:
    for line in lines:
        click.echo(line, err=True)
    sys.exit(1)


def _refuse(error: ConfigError) -> NoReturn:
    count = len(error.problems)
    summary = click.style(
        f"{count} {'mistake' if count == 1 else 'mistakes'} in the configuration", fg="red", bold=True
    )
    _fail(*map(str, error.problems), summary)


def _load(sources: Sources) -> Loaded:
    try:
        return load(sources)
    except ConfigError as error:
        _refuse(error)


@cli.command()
def run() -> None:
    """Run the gateway in the foreground."""
    sources = _sources()
    loaded = _load(sources)
    # Only now: what serves takes five times as long to import as what checks.
    from devhost_server.processes import master  # noqa: PLC0415

    sys.exit(master.run(sources, loaded))


@cli.command()
@json_option
def check(*, as_json: bool) -> None:
    """Check the configuration.

    Prints the routes, or everything that is wrong, each with its place. The user that `server.user` names has to be on
    this machine.
    """
    sources = _sources()
    try:
        loaded = load(sources)
        _expect_user(loaded)
    except ConfigError as error:
        if not as_json:
            _refuse(error)
        _print_json({"ok": False, "errors": [problem_as_json(problem) for problem in error.problems]})
        sys.exit(1)
    routes = routes_as_json(loaded.settings)
    if as_json:
        _print_json({"ok": True, "env": loaded.settings.env, "bind": loaded.settings.server.bind, "routes": routes})
        return
    click.echo(routes_table(routes, _width()))
    files = ", ".join(sources.show(path) for path in loaded.files) or "no file"
    click.echo(f"\n{_listening(loaded.settings.server.bind)}")
    click.echo(f"{_counted(len(routes), 'route')}, environment {loaded.settings.env}, from {files}")


cli.add_command(Verb("validate", callback=check.callback, params=check.params[:1], help=check.help, hidden=True))


def _expect_user(loaded: Loaded) -> None:
    """Look whether `server.user` is on this machine, which a start as root needs. Raises `ConfigError`."""
    user = loaded.settings.server.user
    try:
        if user is not None:
            Identity.find(user)
    except IdentityError as error:
        raise ConfigError((Problem.at(loaded.origins["server.user"], "server.user", str(error)),)) from None


def _listening(binds: Iterable[str]) -> str:
    return printable(f"listens on {', '.join(map(_described, binds))}")


def _described(bind: str) -> str:
    try:
        return parse_bind(bind).described
    except ValueError:  # a secret, of all things: what is shown instead is no address
        return bind


def problem_as_json(problem: Any) -> dict[str, Any]:
    """Return a problem as a JSON object."""
    names = ("file", "line", "column", "key", "message")
    return {name: getattr(problem, name) for name in names}


def routes_as_json(settings: Settings) -> list[dict[str, Any]]:
    """Return the routes of a configuration in the form in which a running gateway lists its own."""
    shown = settings.shown()
    return [
        {
            **shown["routes"][name],
            "targets": shown["upstreams"][route.upstream]["targets"] if route.upstream else [],
            "timeouts": shown["routes"][name]["timeouts"]
            or (shown["upstreams"][route.upstream]["timeouts"] if route.upstream else None),
        }
        for name, route in settings.routes.items()
    ]


@cli.group("config", cls=Verbs)
def config_group() -> None:
    """Show, compare or describe the configuration."""


@config_group.command("show")
@click.argument("key", required=False)
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@json_option
def config_show(key: str | None, *, origin: bool, as_json: bool) -> None:
    """Print the configuration in effect.

    As YAML, defaults included and secrets masked; with a KEY such as server.limits only that part.
    """
    loaded = _load(_sources())
    shown: Any = masked(in_effect(loaded.tree), loaded.secrets)
    path = tuple(key.split(".")) if key else ()
    if key:
        try:
            shown = select(shown, key)
        except KeyError as error:
            part, known = error.args
            raise click.UsageError(f"there is no key '{key}' in the configuration{suggestion(part, known)}") from None

    place = placer(loaded.origins)
    if as_json and origin:
        rows = ((".".join(map(str, at)), value, place(at)) for at, value in flat(shown, path))
        _print_json({name: {"value": value, "origin": where} for name, value, where in rows})
    elif as_json:
        _print_json(shown)
    else:
        click.echo(to_yaml(shown, path, place if origin else None), nl=False)


@config_group.command("diff")
@click.argument("env1")
@click.argument("env2")
@json_option
def config_diff(env1: str, env2: str, *, as_json: bool) -> None:
    """Print what differs between environments.

    What is compared is what the files say, before expansion: no variable and no secret need be there.
    """
    sources = _sources()
    if sources.config_files:
        raise click.UsageError("config diff compares the environments of one folder, and -c replaces the folder")
    first, second = (gather(replace(sources, env=env)) for env in (env1, env2))
    if first.problems or second.problems:
        _refuse(ConfigError(tuple(dict.fromkeys((*first.problems, *second.problems)))))
    found = differences(first, second)
    if as_json:
        _print_json({key: {env1: left, env2: right} for key, left, right in found})
    elif found:
        click.echo(table(("key", env1, env2), [(key, _short(left), _short(right)) for key, left, right in found]))
    else:
        click.echo(f"{env1} and {env2} do not differ")


def _short(value: Any) -> str:
    """Write a value for a person; unlike YAML, text goes as it is, so that expressions can be read."""
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


@config_group.command("schema")
@json_option
def config_schema(*, as_json: bool) -> None:
    """Print the JSON Schema, for editors."""
    # It is JSON either way; scripts give --json to every verb that reads.
    _print_json(json_schema())


# --- what needs a running gateway ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gateway:
    """The admin listener of a running gateway, and the token that it wants."""

    bind: Bind
    token: str | None

    def call(self, method: str, path: str, timeout: float) -> tuple[int, Any]:
        """Make one request, each wait in it for at most `timeout` seconds; give status and decoded JSON (or None).

        Raises `OSError` if nothing answers and `ValueError` if what answers is not JSON over HTTP.
        """
        from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - ssl and email: most verbs need neither

        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        connection = HTTPConnection(*self._called, timeout=timeout)
        connection.sock = self._connected(timeout)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            body = response.read()
        except HTTPException as error:
            raise ValueError(f"it does not speak HTTP ({error or type(error).__name__})") from None
        finally:
            connection.close()
        return response.status, json.loads(body) if body else None

    def _connected(self, timeout: float) -> socket.socket:
        if self.bind.path is None:
            return socket.create_connection((self.reachable_host, self.bind.port), timeout)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout)
            connection.connect(self.bind.path)
        except OSError:
            connection.close()
            raise
        return connection

    @property
    def _called(self) -> tuple[str, int | None]:
        """What it is called in Host: behind a unix socket, there is no name that would say more."""
        return ("localhost", None) if self.bind.path is not None else (self.reachable_host, self.bind.port)

    @property
    def reachable_host(self) -> str:
        """Where to connect: a listener on every address is also on loopback."""
        if not self.bind.is_wildcard:
            return self.bind.host
        return "::1" if ":" in self.bind.host else "127.0.0.1"


def _gateway() -> Gateway:
    given = click.get_current_context().find_root().ensure_object(dict)
    url, token = given.get("admin"), _given_token(given.get("token"))
    try:
        options = load_admin(_sources())
    except ConfigError as error:
        if url is None:
            _refuse(error)
        return Gateway(_admin_url(url), token)
    token = token or options.token
    if url is not None:
        return Gateway(_admin_url(url), token)
    if options.bind is None:
        _fail("the configuration has no admin listener (admin.bind is null); name a running gateway's with --admin")
    return Gateway(parse_bind(options.bind), token)


def _given_token(option: str | None) -> str | None:
    """Return the token of the option, or else of the environment; None if there is neither."""
    name, token = ("--token", option) if option is not None else ("DEVHOST_TOKEN", os.environ.get("DEVHOST_TOKEN"))
    try:
        return token_text(token) if token else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=name) from None


def _admin_url(url: str) -> Bind:
    """Read ``http://host:port``, ``host:port`` or ``unix:/path``."""
    try:
        return parse_bind(url.removeprefix("http://").rstrip("/"))
    except ValueError:
        message = f"'{url}' is not an admin listener; write http://host:port or unix:/path"
        raise click.BadParameter(message, param_hint="--admin") from None


def _ask(
    method: str, path: str, shape: type[Shape], refused: type[Shape] | None = None, timeout: float | None = None
) -> tuple[bool, Any]:
    """Call the running gateway; tell whether it did what was asked, and what it said.

    Success has to be of `shape`. A refusal (422) may be an answer too, of the shape `refused`. All else ends the
    program with a sentence.
    """
    gateway, timeout = _gateway(), timeout or READ_TIMEOUT
    try:
        status, answer = gateway.call(method, path, timeout)
    except TimeoutError:
        _fail(f"the gateway on {gateway.bind} did not answer within {timeout:g} s")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        # Where a layer could not be read, its admin.bind is not known either.
        _fail(
            *_unread_layers(),
            f"no gateway answers on {gateway.bind} ({reason}); start one, or name its admin listener with --admin",
        )
    except (ValueError, RecursionError) as error:
        _fail(f"what answers on {gateway.bind} is not a devhost-server: {printable(str(error))}")
    done = 200 <= status < 300
    expected = shape if done else refused if status == HTTPStatus.UNPROCESSABLE_ENTITY else None
    if expected is not None:
        if not _is_of(expected, answer):
            _fail(f"what answers on {gateway.bind} is not a devhost-server: its answer to {method} {path} is not one's")
        return done, answer
    if status in (401, 403):
        _fail(
            f"the gateway on {gateway.bind} wants a token that is not the admin.token of this configuration; "
            "give it with --token or DEVHOST_TOKEN"
        )
    detail = answer.get("detail") or answer.get("title") if isinstance(answer, dict) else None
    reason = f": {printable(str(detail))}" if detail else ""
    _fail(f"the gateway on {gateway.bind} answered {status} to {method} {path}{reason}")


def _unread_layers() -> list[str]:
    if "admin" in click.get_current_context().find_root().ensure_object(dict):
        return []
    return [printable(str(problem)) for problem in gather(_sources()).problems]


def _is_of(shape: type[Shape], answer: Any) -> bool:
    try:
        shape.model_validate(answer)
    except ValidationError:
        return False
    return True


@cli.command()
@json_option
def routes(*, as_json: bool) -> None:
    """Print the routes of the running gateway."""
    _, answer = _ask("GET", "/api/routes", shapes.Routes)
    if as_json:
        _print_json(answer)
        return
    click.echo(routes_table(answer["routes"], _width()))
    click.echo(f"\n{_listening(answer['bind'])}" if answer.get("bind") else "")
    click.echo(f"{_counted(len(answer['routes']), 'route')}, generation {answer['generation']}")


@cli.command()
@json_option
def status(*, as_json: bool) -> None:
    """Print the state of the running gateway.

    Its workers, the connections to its upstreams, and how the last reload went.
    """
    _, answer = _ask("GET", "/api/status", shapes.Status)
    if as_json:
        _print_json(answer)
    else:
        click.echo(status_text(answer))


@cli.command("reload")
@json_option
def reload_command(*, as_json: bool) -> None:
    """Reload the running gateway's configuration.

    Done when every worker serves it. If something is wrong with it, the gateway keeps what it has.
    """
    done, answer = _ask("POST", "/api/reload", shapes.Reloaded, shapes.NotReloaded, RELOAD_TIMEOUT)
    if as_json:
        _print_json(answer)
    elif done:
        click.echo(f"reloaded: every worker serves generation {answer['generation']}")
    else:
        for error in answer["errors"]:
            click.echo(printable(error), err=True)
        click.echo("not reloaded: the configuration from before keeps serving", err=True)
    sys.exit(0 if done else 1)


@cli.command()
@json_option
def drain(*, as_json: bool) -> None:
    """Stop the running gateway gracefully.

    It finishes what is in flight, for as long as server.drain allows, and then ends.
    """
    _, answer = _ask("POST", "/api/drain", shapes.Draining)
    if as_json:
        _print_json(answer)
    else:
        click.echo("draining: no new work is taken once drain.delay has passed; watch with `devhost-server status`")


# --- verbs of later versions -----------------------------------------------------------------------------------------


def _add_unbuilt(name: str, instead: str) -> None:
    @click.argument("rest", nargs=-1, type=click.UNPROCESSED)
    def refuse(rest: tuple[str, ...]) -> None:
        raise click.UsageError(f"`{name}` is not built in this version; {instead}")

    settings = {"ignore_unknown_options": True, "help_option_names": []}
    cli.command(name, cls=click.Command, hidden=True, context_settings=settings)(refuse)


_add_unbuilt("explain", "`check` prints the routes, of which the most specific wins")
_add_unbuilt("route", "write routes into the configuration and `devhost-server reload`")


# --- output ----------------------------------------------------------------------------------------------------------


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


# What few routes have, and is written below them where there is no room beside them.
_ASIDE: Final = ("methods", "headers", "time-outs", "owner")


def _width() -> int | None:
    """Return how wide a table may be: the terminal's width, None where a program reads it line by line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], width: int | None = None, aside: Collection[str] = ()
) -> str:
    """Lay out a table; columns that would be empty are left out, the last one is not padded.

    A cell may be a list. If the table is wider than `width`, the items of a list stand below one another; if it still
    is, the columns in `aside` are written below each row.
    """
    cells = [[_items(cell) for cell in row] for row in rows]
    used = [column for column in range(len(head)) if not cells or any(any(row[column]) for row in cells)]
    joined = [[[", ".join(cell)] for cell in row] for row in cells]
    below: list[list[str]] = [[] for _ in cells]
    blocks = _laid_out(head, used, joined)
    if width is not None and _widest(blocks) > width:
        blocks = _laid_out(head, used, cells)
    if width is not None and _widest(blocks) > width and aside:
        below = [_notes(head, used, row, aside) for row in joined]
        used = [column for column in used if head[column] not in aside]
        blocks = _laid_out(head, used, joined)
        blocks = blocks if _widest(blocks) <= width else _laid_out(head, used, cells)
    lines = [line for block, notes in zip(blocks[1:], below, strict=True) for line in (*block, *notes)]
    return "\n".join([click.style(blocks[0][0], bold=True), *lines])


def _items(cell: object) -> list[str]:
    if isinstance(cell, list | tuple):
        return [printable(str(item)) for item in cell]
    return ["" if cell is None else printable(str(cell))]


def _laid_out(head: Sequence[str], used: Sequence[int], rows: Iterable[Sequence[Sequence[str]]]) -> list[list[str]]:
    """Return the lines of the head and of each row, for cells that may have several."""
    shown: list[list[Sequence[str]]] = [
        [[head[column].upper()] for column in used],
        *([row[column] for column in used] for row in rows),
    ]
    widths = [max(len(line) for cell in column for line in (*cell, "")) for column in zip(*shown, strict=True)]
    return [
        [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in zip_longest(*(cell or [""] for cell in row), fillvalue="")
        ]
        for row in shown
    ]


def _widest(blocks: Iterable[Iterable[str]]) -> int:
    return max(len(line) for block in blocks for line in block)


def _notes(head: Sequence[str], used: Sequence[int], row: Sequence[Sequence[str]], aside: Collection[str]) -> list[str]:
    return [f"    {head[column]}: {row[column][0]}" for column in used if head[column] in aside and row[column][0]]


def routes_table(routes: Iterable[Mapping[str, Any]], width: int | None = None) -> str:
    """Lay out routes as `check` and `routes` list them."""
    head = ("route", "host", "path", "methods", "headers", "answer", "targets", "time-outs", "owner")
    return table(head, [_route_row(route) for route in routes], width, _ASIDE)


def _route_row(route: Mapping[str, Any]) -> tuple[object, ...]:
    conditions = route.get("headers") or {}
    fixed = route.get("respond")
    answer = f"answers {fixed['status']}" if fixed else f"upstream {route.get('upstream')}"
    return (
        route["name"],
        route["hosts"],
        f"{route['path']} (cut off)" if route.get("strip_prefix") is True else route["path"],
        ",".join(route.get("methods") or ()),
        [f"{name}: {value}" for name, value in conditions.items()],
        answer,
        [_target(target) for target in route.get("targets") or ()],
        _unusual_timeouts(route.get("timeouts") or {}),
        route.get("owner"),
    )


def _unusual_timeouts(timeouts: Mapping[str, Any]) -> list[str]:
    """Write those that somebody has chosen: the others would make every table too wide."""
    usual = UpstreamTimeouts().model_dump()
    return [
        f"{name} {render_duration(value) if isinstance(value, int | float) else value}"
        for name, value in timeouts.items()
        if value != usual.get(name)
    ]


def _target(target: Mapping[str, Any]) -> str:
    weight = f" x{target['weight']}" if target.get("weight", 1) != 1 else ""
    state = {True: " (up)", False: " (down)"}.get(target["up"], "") if target.get("up") is not None else ""
    return f"{target['url']}{weight}{state}"


def status_text(status: Mapping[str, Any]) -> str:
    """Lay out what ``GET /api/status`` says."""
    summary = (
        f"devhost-server {status.get('version')}: {status.get('state')}, environment {status.get('env')}, "
        f"generation {status.get('generation')}, up {_since(status.get('uptime_s', 0))}, pid {status.get('pid')}"
    )
    columns = ("slot", "pid", "state", "generation", "connections", "in_flight", "websockets", "restarts")
    workers = [[worker.get(column) for column in columns] for worker in status.get("workers", ())]
    targets = [
        [
            upstream["name"],
            *(target.get(name) for name in ("url", "in_flight", "connections_active", "connections_idle")),
            _health(target),
        ]
        for upstream in status.get("upstreams", ())
        for target in upstream.get("targets", ())
    ]
    parts = [printable(summary), "", table(["worker", *(name.replace("_", " ") for name in columns[1:])], workers)]
    if targets:
        parts += ["", table(("upstream", "target", "in flight", "active", "idle", "state"), targets)]
    return "\n".join([*parts, *_last_reload(status.get("last_reload"))])


def _health(target: Mapping[str, Any]) -> str:
    if target.get("failing_since"):
        return f"down since {target['failing_since']}"
    return "up" if target.get("up") else "not tried yet"


def _last_reload(reload: Mapping[str, Any] | None) -> list[str]:
    if not reload:
        return []
    line = f"last reload: {reload.get('result')} at {reload.get('at')}, generation {reload.get('generation')}"
    return ["", printable(line), *(f"  {printable(str(error))}" for error in reload.get("errors") or ())]


def _since(seconds: float) -> str:
    """Write an age with its two largest units."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= length or parts:
            parts.append(f"{left // length}{unit}")
            left %= length
    return " ".join(parts[:2]) or "0s"
