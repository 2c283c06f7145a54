"""An application as a team has it, and the same in the middleware of the recipe."""

import page
from fastapi import FastAPI, Request

plain = FastAPI()


@plain.get("/items/")
async def items(request: Request):
    return {"here": str(request.url_for("items"))}


prefixed = page.run("class Prefix", app=plain)["app"]
