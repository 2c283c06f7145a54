"""A Flask application as in the recipe, which says where it believes to live."""

import sys

import page
import waitress
from flask import Flask, redirect, request, url_for

app = Flask(__name__)
page.run("ProxyFix", app=app)


@app.get("/items/")
def items():
    return {"here": url_for("items", _external=True), "root": request.root_url, "client": request.remote_addr}


@app.get("/")
def first():
    return redirect(url_for("items"))


waitress.serve(app, listen=f"127.0.0.1:{sys.argv[1]}", clear_untrusted_proxy_headers=False)
