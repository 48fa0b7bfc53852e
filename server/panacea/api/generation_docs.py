"""The OpenAPI entries of the routes that generate text: they read and write their bodies themselves."""

from typing import Any

from pydantic import BaseModel

from panacea.api.catalog import Catalog
from panacea.api.errors import error_docs
from panacea.api.generation_request import GenerationRequest
from panacea.api.response import AnswerHead


def generation_docs(chunk: type[AnswerHead]) -> dict[int | str, dict[str, Any]]:
    """The answers: `chunk` is an event of the stream."""
    stream = {"content": {"text/event-stream": {"schema": _reference(chunk.__name__)}}}
    return {200: stream, **error_docs(400, 401, 404, 413, 415, 421, 503)}


def request_docs(request: type[GenerationRequest], catalog: Catalog, prompt: Any) -> dict[str, Any]:
    """The body: an example that works as it stands, with `prompt` in the field for it."""
    example: dict[str, Any] = {"model": catalog.name, request.prompt_field: prompt}
    if catalog.space:
        example["preference"] = catalog.space.as_dict(catalog.space.default)
    return body_docs(request, example)


def body_docs(body: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """The body of any route that reads it itself."""
    content = {"application/json": {"schema": _reference(body.__name__), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def example_prompt(catalog: Catalog) -> str:
    """Something to ask this model."""
    prompts = catalog.space.example_prompts if catalog.space else ()
    return prompts[0] if prompts else "Hello"


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
