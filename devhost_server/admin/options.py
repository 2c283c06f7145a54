"""What a site decides about the admin listener."""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from devhost_server.options import BindAddress, KeyedError, Options, parse_bind

# RFC 6750 §2.1 b64token, widened to every visible character: the token travels in one header field.
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


def _token(text: str) -> str:
    # The text is never part of the sentence: errors end up in logs.
    if not _TOKEN.fullmatch(text):
        raise ValueError("a token is at least one visible ASCII character, without spaces (null for no token)")
    return text


class AdminOptions(Options):
    """Where health, metrics and the API are served, and to whom."""

    bind: BindAddress | None = Field(
        default="127.0.0.1:7778", description="`host:port`, `[::1]:port` or `unix:/path`; null for no admin listener."
    )
    token: Annotated[str, AfterValidator(_token)] | None = Field(
        default=None,
        repr=False,
        description="Bearer token that changes need. Required unless `bind` is loopback or a unix socket.",
    )

    @model_validator(mode="after")
    def _open_to_others_only_with_a_token(self) -> Self:
        if self.bind is not None and self.token is None and not parse_bind(self.bind).is_local:
            raise KeyedError(
                "bind",
                f"{self.bind} can be reached from other machines, so `token` is required: set one "
                "(for example token: ${file:/run/secrets/admin-token}) or bind to 127.0.0.1 or unix:/path",
            )
        return self
