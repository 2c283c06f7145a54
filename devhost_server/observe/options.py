"""What a site decides about logs."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from devhost_server.options import Options
from devhost_server.units import quote


def _access_target(text: str) -> str:
    # A bare word is far more often a misspelled `stdout` than a file meant for the working directory.
    if text != "stdout" and ("/" not in text or text.endswith("/") or not text.isprintable()):
        raise ValueError(f"{quote(text)} is not a place for the access log: write stdout, a path with a /, or null")
    return text


class LogOptions(Options):
    """Where logs go and what they look like."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe message that is logged: debug, info, warning or error."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="json, console, or auto: console on a terminal, else json."
    )
    access: Annotated[str, AfterValidator(_access_target)] | None = Field(
        default="stdout", description="Access log: stdout, the path of a file (`./` in front if relative), or null."
    )
