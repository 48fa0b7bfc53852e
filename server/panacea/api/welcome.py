"""`GET /`: a few lines for whoever opens the server in a browser."""

import json

from fastapi import APIRouter, Request, Response

from panacea.api.catalog import Catalog


def welcome_router(catalog: Catalog, needs_key: bool) -> APIRouter:
    """The route, over this catalog. `needs_key` adds the key to the example."""
    router = APIRouter(include_in_schema=False)
    space = catalog.space
    prompt = space.example_prompts[0] if space and space.example_prompts else "Hello"
    body: dict[str, object] = {"messages": [{"role": "user", "content": prompt}]}
    if space:
        body["preference"] = space.as_dict(space.default)
    key = "-H 'Authorization: Bearer YOUR_KEY' " if needs_key else ""
    # A single quote would end the shell's string.
    quoted = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")

    @router.get("/")
    async def welcome(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        address = f"{request.url.scheme}://{request.url.netloc}"
        lines = (
            f"Panacea serves {catalog.name}.",
            f"Ask it, for example: {prompt}",
            "",
            f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' {key}\\",
            f"  -d '{quoted}'",
            "",
            f"All fields: {address}/docs",
            "",
        )
        return Response("\n".join(lines), media_type="text/plain")

    return router
