"""Django under gunicorn, behind something that ends TLS."""

import pytest

from tests.recipes.support import Visitor, recipe, running, virtual_environment
from tests.support import free_port

SHOP = "shop.example.com"


def test_forms_the_admin_and_links_are_right_over_https() -> None:
    binaries = virtual_environment("DJANGO", "django gunicorn")
    port = free_port()
    command = (binaries / "gunicorn", "-b", f"127.0.0.1:{port}", "--no-control-socket", "django_app:application")
    # This test is the terminator.
    trusted = {"server": {"trusted_proxies": ["127.0.0.1"]}}
    with running(port, *command), recipe(port, "shop", **trusted) as gateway:
        visitor = Visitor(gateway, SHOP, {"X-Forwarded-Proto": "https", "Origin": f"https://{SHOP}"})
        token = visitor.get("/form").text
        saved = visitor.ask("POST", "/form", f"csrfmiddlewaretoken={token}", _FORM)
        assert saved.text == f"saved over https at https://{SHOP}/done"
        assert visitor.get("/admin/").headers["Location"] == "/admin/login/?next=/admin/"
        assert "csrfmiddlewaretoken" in visitor.get("/admin/login/?next=/admin/").text
        fields = f"csrfmiddlewaretoken={token}&username=ann&password=s3cret-of-a-test&next=/admin/"
        logged_in = visitor.ask("POST", "/admin/login/?next=/admin/", fields, _FORM)
        assert (logged_in.status, logged_in.headers["Location"]) == (302, "/admin/")
        assert "Site administration" in visitor.get("/admin/").text


@pytest.mark.parametrize("trusted", [True, False])
def test_only_the_terminator_may_say_that_a_request_was_https(trusted: bool) -> None:
    binaries = virtual_environment("DJANGO", "django gunicorn")
    port = free_port()
    command = (binaries / "gunicorn", "-b", f"127.0.0.1:{port}", "--no-control-socket", "django_app:application")
    server = {"server": {"trusted_proxies": ["127.0.0.1"] if trusted else []}}
    with running(port, *command), recipe(port, "shop", **server) as gateway:
        answer = Visitor(gateway, SHOP, {"X-Forwarded-Proto": "https"}).get("/form?x=1")
        assert answer.status == (200 if trusted else 301)
        assert trusted or answer.headers["Location"] == f"https://{SHOP}/form?x=1"


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
