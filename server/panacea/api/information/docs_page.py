"""`GET /docs`: the OpenAPI document as one HTML page, without scripts and external resources."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_STYLE = files("panacea.api.information").joinpath("docs_page.css").read_text("utf-8")
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def add_docs_page(app: FastAPI) -> None:
    """Serves the page. It is rendered on the first request."""
    written: list[str] = []

    async def docs(_request: Request) -> Response:
        if not written:
            written.append(docs_page(app.openapi()))
        return HTMLResponse(written[0], headers=_HEADERS)

    app.add_route("/docs", docs, include_in_schema=False)


def docs_page(document: Mapping[str, Any]) -> str:
    """The page of an OpenAPI document. All text is escaped; only `code` and **bold** in descriptions become markup."""
    info = document["info"]
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = document["components"]["schemas"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])}: the API</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}: the API</h1>",
        *_paragraphs(info["description"]),
        '<p>The OpenAPI document is <a href="/openapi.json">/openapi.json</a>. Try the model on the '
        '<a href="/">web page</a>.</p>',
        "<nav><ul>",
        *(f'<li><a href="#{_anchor(name)}"><code>{escape(name)}</code></a></li>' for name, _ in operations),
        "</ul></nav>",
        *(part for name, operation in operations for part in _operation(name, operation)),
        "<h2>Request and response bodies</h2>",
        *(part for name in sorted(schemas) for part in _schema(name, schemas[name])),
        "</main></body></html>",
    ]
    return "\n".join(parts)


def _operation(name: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section id="{_anchor(name)}"><h2><code>{escape(name)}</code></h2>'
    yield f"<p><strong>{escape(operation['summary'])}</strong></p>"
    yield from _paragraphs(operation["description"])
    for parameter in operation.get("parameters", ()):
        yield f"<p><code>{escape(parameter['name'])}</code>: {_inline(parameter['description'])}</p>"
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None:
        yield f"<p>Body: {_type(content['schema'])}</p>"
        for example in content["examples"].values():
            yield f"<details><summary>{escape(example['summary'])}</summary>"
            yield f"<pre>{escape(_curl(name, example['value']))}</pre></details>"
    yield '<div class="wide"><table><thead><tr><th>status</th><th>meaning</th><th>body</th></tr></thead><tbody>'
    for status, answer in operation["responses"].items():
        kinds = (f"{_type(body['schema'])} as {escape(kind)}" for kind, body in answer.get("content", {}).items())
        yield f"<tr><td>{escape(status)}</td><td>{_inline(answer['description'])}</td><td>{', '.join(kinds)}</td></tr>"
    yield "</tbody></table></div></section>"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f'<section id="{_anchor(name)}"><h3><code>{escape(name)}</code></h3>'
    yield from _paragraphs(schema.get("description", ""))
    yield '<div class="wide"><table><thead><tr><th>field</th><th>type</th><th>meaning</th></tr></thead><tbody>'
    required = schema.get("required", ())
    for field, described in schema.get("properties", {}).items():
        mark = " <em>required</em>" if field in required else ""
        yield f"<tr><td><code>{escape(field)}</code>{mark}</td><td>{_type(described)}</td>"
        yield f"<td>{_inline(described.get('description', ''))}</td></tr>"
    yield "</tbody></table></div></section>"


_BOUNDS = {
    "minimum": "\u2265 {}",
    "exclusiveMinimum": "> {}",
    "maximum": "\u2264 {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
}


def _type(schema: Mapping[str, Any]) -> str:
    """The allowed type and values, as HTML."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f'<a href="#{_anchor(name)}">{escape(name)}</a>'
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(each) for each in schema[key]))
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    bounds = [text.format(schema[key]) for key, text in _BOUNDS.items() if key in schema]
    kind = escape(str(schema.get("type", "anything")))
    if kind == "array":
        kind = f"array of {_type(schema.get('items', {}))}"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        kind = f"object of {_type(schema['additionalProperties'])}"
    return kind + (f" ({escape(', '.join(bounds))})" if bounds else "")


def _curl(name: str, body: object) -> str:
    path = name.partition(" ")[2]
    text = json.dumps(body, indent=2, ensure_ascii=False).replace("'", "'\\''")
    return f"curl http://localhost:8000{path} -H 'Content-Type: application/json' -d '{text}'"


def _paragraphs(text: str) -> list[str]:
    return [f"<p>{_inline(paragraph)}</p>" for paragraph in text.strip().split("\n\n") if paragraph]


def _inline(text: str) -> str:
    marked = re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]*)\*\*", r"<strong>\1</strong>", marked)


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-")
