"""A Flask application as in the recipe, which says where it believes to live."""

import sys

import waitress
from flask import Flask, redirect, request, url_for
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)


@app.get("/items/")
def items():
    return {"here": url_for("items", _external=True), "root": request.root_url, "client": request.remote_addr}


@app.get("/")
def first():
    return redirect(url_for("items"))


waitress.serve(app, listen=f"127.0.0.1:{sys.argv[1]}", clear_untrusted_proxy_headers=False)
