"""What a site decides about the admin listener."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from devhost_server.options import (
    BindAddress,
    Entries,
    HostName,
    KeyedError,
    OneLine,
    OneOrMore,
    Options,
    parse_bind,
)
from devhost_server.secrecy import MASK

# RFC 6750 §2.1 b64token, widened to every visible character: the token travels in one header field.
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


def token_text(text: str) -> str:
    """Check that a text can be a token. Raises `ValueError`."""
    # The text is never part of the sentence: errors end up in logs.
    if not _TOKEN.fullmatch(text):
        raise ValueError("a token is at least one visible ASCII character, without spaces (null for no token)")
    return text


def _one_owner_each(tokens: Mapping[str, str]) -> Mapping[str, str]:
    owners: dict[str, str] = {}
    for owner, token in tokens.items():
        other = owners.setdefault(token, owner)
        if other != owner and token != MASK:  # masked, as they are published to the other processes, all are equal
            raise ValueError(f"{other} and {owner} have the same token, so nobody could tell who it was; change one")
    return tokens


Token = Annotated[str, AfterValidator(token_text)]
Owners = Annotated[dict[OneLine, Token], Entries, AfterValidator(_one_owner_each)]


class AdminOptions(Options):
    """Where health, metrics and the API are served, and to whom."""

    bind: BindAddress | None = Field(
        default="127.0.0.1:7778", description="`host:port`, `[::1]:port` or `unix:/path`; null for no admin listener."
    )
    hosts: Annotated[tuple[HostName, ...], OneOrMore] = Field(
        default=(),
        description="Names it may be called by (`Host`), beside the host of `bind` and, on this machine, `localhost` "
        "and `*.localhost`. Addresses always may.",
    )
    token: Token | None = Field(
        default=None,
        repr=False,
        description="Bearer token that changes need, and reads where others can reach the listener. There must be one, "
        "here or in `tokens`, unless `bind` is loopback or a unix socket.",
    )
    tokens: Owners = Field(
        default={},
        repr=False,
        description="Further tokens by owner, `OWNER: token`: the log names who changed something.",
    )

    @model_validator(mode="after")
    def _open_to_others_only_with_a_token(self) -> Self:
        if self.bind is not None and not self.has_token and not parse_bind(self.bind).is_local:
            raise KeyedError(
                "bind",
                f"{self.bind} can be reached from other machines, so `token` is required: set one "
                "(for example token: ${file:/run/secrets/admin-token}) or bind to 127.0.0.1 or unix:/path",
            )
        return self

    @model_validator(mode="after")
    def _tokens_beside_the_token(self) -> Self:
        if any(token == self.token != MASK for token in self.tokens.values()):
            raise KeyedError("tokens", "one of these is `token` itself, so nobody could tell whose it is; change one")
        return self

    @property
    def has_token(self) -> bool:
        """Whether there is any token."""
        return self.token is not None or bool(self.tokens)
