"""A Django project in one file: a form, the admin, and the settings of the recipe."""

import os
import sys
from pathlib import Path

import django
import page
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    DEBUG=False,
    SECRET_KEY="of a test",
    ROOT_URLCONF=__name__,
    **{name: value for name, value in page.run("SECURE_PROXY_SSL_HEADER").items() if name.isupper()},
    SECURE_SSL_REDIRECT=True,
    SESSION_COOKIE_SECURE=True,
    CSRF_COOKIE_SECURE=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(os.environ["HOME"]) / "db"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)
django.setup()

from django.contrib import admin  # noqa: E402 -- needs the settings
from django.contrib.auth.models import User  # noqa: E402
from django.urls import path  # noqa: E402


def form(request):
    if request.method == "POST":
        return HttpResponse(f"saved over {request.scheme} at {request.build_absolute_uri('/done')}")
    return HttpResponse(get_token(request))


@csrf_exempt
def upload(request):
    return HttpResponse(request.body)


urlpatterns = [path("form", form), path("upload", upload), path("admin/", admin.site.urls)]

if sys.argv[0].endswith("gunicorn"):
    call_command("migrate", verbosity=0)
    User.objects.create_superuser("ann", "ann@example.com", "s3cret-of-a-test")
application = get_wsgi_application()
