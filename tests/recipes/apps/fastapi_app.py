"""An application as a team has it, with the middleware of the recipe."""

from fastapi import FastAPI, Request


class Prefix:
    """Says what the gateway cut off."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        cut = dict(scope.get("headers", ())).get(b"x-forwarded-prefix", b"").decode()
        if cut:
            scope = {**scope, "root_path": cut, "path": cut + scope["path"]}
        await self.app(scope, receive, send)


plain = FastAPI()


@plain.get("/items/")
async def items(request: Request):
    return {"here": str(request.url_for("items"))}


prefixed = Prefix(plain)
