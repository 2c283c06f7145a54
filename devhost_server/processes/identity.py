"""Whom the processes that meet strangers run as, where the gateway is started as root: `server.user`.

As with nginx, the master stays root: it binds, reads configurations and secrets, and starts and stops the others. They
become the user right after the fork, and nothing leads back.
"""

import ctypes
import grp
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38


class IdentityError(Exception):
    """There is no such user or group; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user with its groups, as this machine knows them."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def find(cls, text: str) -> Self:
        """Look up ``NAME[:GROUP]``, each a name or a number. Raises `IdentityError`."""
        name, _, group = text.partition(":")
        uid, gid = _user(name)
        if group:
            gid = _group(group)
        if gid is None:
            raise IdentityError(f"the user {name} has no entry on this machine; give a group too: {name}:GROUP")
        return cls(name, uid, gid, (gid,) if group else _groups(uid, gid))

    def become(self, *, dumpable: bool = False) -> None:
        """Be this user from now on, in this process. With `dumpable`, others of the user may look at it in /proc."""
        if self.uid == os.geteuid():
            return
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)

    def can(self, action: Callable[[], object]) -> bool:
        """Try something as this user, in a process of its own; return whether it went without an exception."""
        pid = os.fork()
        if not pid:
            status = 1
            try:
                self.become()
                action()
                status = 0
            finally:
                os._exit(status)
        return os.waitpid(pid, 0)[1] == 0


def _user(name: str) -> tuple[int, int | None]:
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        if name.isdigit():
            return int(name), None
        raise IdentityError(f"there is no user {name} on this machine") from None
    return entry.pw_uid, entry.pw_gid


def _group(name: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise IdentityError(f"there is no group {name} on this machine") from None


def _groups(uid: int, gid: int) -> tuple[int, ...]:
    """Return all groups of a user, looked up now: after the fork it would load what libc needs for that."""
    try:
        return tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        return (gid,)
