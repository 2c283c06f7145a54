"""What a site decides about logs."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from devhost_server.options import Options
from devhost_server.units import Written, quote


def _access_target(value: object) -> object:
    # A bare word is far more often a misspelled `stdout` than a file meant for the working directory.
    is_path = isinstance(value, str) and "/" in value and not value.endswith("/") and value.isprintable()
    if value in ("stdout", None) or is_path:
        return value
    raise ValueError(
        f"{quote(value)} is not a place for the access log: write stdout, a path with a /, or null for no access log"
    )


class LogOptions(Options):
    """Where logs go and what they look like."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe message that is logged: debug, info, warning or error."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto",
        description="json, console, or auto: console on a terminal, else json; requests likewise.",
    )
    access: Annotated[str | None, BeforeValidator(_access_target), Written("path")] = Field(
        default="stdout", description="Access log: stdout, the path of a file (`./` in front if relative), or null."
    )
