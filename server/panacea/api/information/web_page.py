"""`GET /`: the web page with preference sliders, from `clients/web/page`."""

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOLDER = "/page"
"""Path of the page's files. The page itself is at `/`."""

_SMALLEST_COMPRESSED = 1024

_HEADERS = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            # The page sets computed styles through the DOM, which this directive does not restrict.
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # Browsers refuse to turn a string into markup or code, so a model's answer cannot inject any.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    # The browser revalidates each file, so that it never mixes old and new modules after an upgrade.
    "cache-control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serves the page and its files. Their headers restrict them to connections to this server."""
    folder = page_folder()
    page = GZipMiddleware(StaticFiles(directory=folder), minimum_size=_SMALLEST_COMPRESSED)
    app.mount(FOLDER, _Guarded(page), name="page")

    async def index(_request: Request) -> Response:
        return FileResponse(folder / "index.html", headers=_HEADERS)

    app.add_route("/", index, include_in_schema=False)


def page_folder() -> Path:
    """The folder of the page: inside the package in a wheel, else in the repository."""
    package = Path(str(files("panacea")))
    in_wheel = package / "page"
    return in_wheel if in_wheel.is_dir() else package.parents[1] / "clients/web/page"


class _Guarded:
    """Adds the page's headers to all of its files."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, send_guarded)
