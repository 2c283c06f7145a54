"""The options that every verb takes, before or after its name."""

from typing import Any, Final

import click

_PLACES: Final = "$DEVHOST_CONFIG_DIR, else ./config, else /etc/devhost-server, else what is packaged"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def given() -> dict[str, Any]:
    """Return the global options given so far, by name. What was not given is missing."""
    return _given(click.get_current_context())


def _given(ctx: click.Context) -> dict[str, Any]:
    return ctx.find_root().ensure_object(dict)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Store a global option for the verb. The last one given wins; values of a repeatable option add up."""
    stored = _given(ctx)
    name = str(param.name)
    if isinstance(value, tuple):
        stored[name] = (*stored.get(name, ()), *value)
    elif value is not None:
        stored[name] = value


def _remember_assignments(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
    """Store values of `--set`. Raises `BadParameter` for one that is not ``key=value``."""
    for assignment in value:
        key, equals, _ = assignment.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"'{assignment}' is not understood; write key.path=value")
    _remember(ctx, param, value)


def global_options() -> list[click.Parameter]:
    """Return new parameters for the global options. They are stored, and not passed to the verb's function."""

    def option(*names: str, callback: Any = _remember, **attributes: Any) -> click.Option:
        return click.Option(names, callback=callback, expose_value=False, **attributes)

    return [
        option("--env", metavar="NAME", help="Environment.  [default: $DEVHOST_ENV, else dev]"),
        option("--config-dir", metavar="DIR", help=f"Folder of the configuration.  [default: {_PLACES}]"),
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
