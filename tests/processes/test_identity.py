"""Users as this machine knows them, and becoming one of them (whole gateways: tests/integration/test_identity.py)."""

import grp
import os
import pwd

import pytest

from devhost_server.processes.identity import Identity, IdentityError
from tests.shared.boards import exit_code, fork

NOBODY = pwd.getpwnam("nobody")
ROOT_GROUP = grp.getgrgid(0).gr_name


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups"),
    [
        ("nobody", NOBODY.pw_uid, NOBODY.pw_gid, None),
        (str(NOBODY.pw_uid), NOBODY.pw_uid, NOBODY.pw_gid, None),
        (f"nobody:{ROOT_GROUP}", NOBODY.pw_uid, 0, (0,)),
        ("nobody:4321", NOBODY.pw_uid, 4321, (4321,)),
        ("4000000:4321", 4000000, 4321, (4321,)),
    ],
)
def test_users_and_groups_by_name_and_number(text: str, uid: int, gid: int, groups: tuple[int, ...] | None) -> None:
    found = Identity.find(text)
    assert (found.uid, found.gid) == (uid, gid)
    assert gid in found.groups
    assert groups is None or found.groups == groups


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no-such-user", "there is no user no-such-user on this machine"),
        ("nobody:no-such-group", "there is no group no-such-group on this machine"),
        ("4000000", "the user 4000000 has no entry on this machine; give a group too: 4000000:GROUP"),
    ],
)
def test_who_is_not_there_is_told(text: str, said: str) -> None:
    with pytest.raises(IdentityError, match=said):
        Identity.find(text)


def test_being_who_one_is_changes_nothing() -> None:
    Identity("me", os.geteuid(), 4321, (4321,)).become()
    assert os.getegid() != 4321


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_there_is_no_way_back() -> None:
    def become() -> None:
        Identity.find("nobody").become()
        assert os.getresuid() == (NOBODY.pw_uid,) * 3
        assert os.getresgid() == (NOBODY.pw_gid,) * 3
        for back in (lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
            with pytest.raises(PermissionError):
                back()

    assert exit_code(fork(become)) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_a_user_can_do_is_tried_without_becoming_it() -> None:
    nobody = Identity.find("nobody")
    assert nobody.can(lambda: None)
    assert not nobody.can(lambda: os.setuid(0))
    assert os.geteuid() == 0
