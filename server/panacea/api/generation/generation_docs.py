"""OpenAPI entries of the routes that generate text, because they read and write their bodies without FastAPI."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from panacea.api.catalog import Catalog
from panacea.api.error_responses import error_docs
from panacea.api.generation.generation_request import GenerationRequest
from panacea.api.generation.usage import AnswerHead

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
"""A JSON schema for the examples."""


def generation_docs(chunk: type[AnswerHead]) -> dict[int | str, dict[str, Any]]:
    """The responses of a route. `chunk` is the type of the stream's events."""
    stream = {"content": {"text/event-stream": {"schema": _reference(chunk.__name__)}}}
    return {200: stream, **error_docs(400, 401, 403, 404, 408, 413, 415, 421, 429, 431, 500, 503, 504)}


def request_docs(
    request: type[GenerationRequest], catalog: Catalog, prompt: Any, more: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """The request body with examples that work unchanged. `prompt` is the value of the request's prompt field.

    `more` maps a title to the additional fields of a further example.
    """
    asked: dict[str, Any] = {"model": catalog.name, request.prompt_field: prompt}
    steered = {"preference": catalog.space.as_dict(catalog.space.default)} if catalog.space else {}
    return body_docs(
        request,
        {
            ("A question with a preference" if catalog.space else "A question"): {**asked, **steered},
            "The same as a stream": {**asked, **steered, "stream": True, "stream_options": {"include_usage": True}},
            "JSON that follows a schema": {
                **asked,
                "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
                "max_tokens": 64,
            },
            **{what: {**asked, **fields} for what, fields in more.items()},
        },
    )


def body_docs(body: type[BaseModel], examples: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The request body of a route that reads it without FastAPI. `examples` maps a title to a body."""
    named = {re.sub(r"\W+", "_", what.lower()): {"summary": what, "value": each} for what, each in examples.items()}
    content = {"application/json": {"schema": _reference(body.__name__), "examples": named}}
    return {"requestBody": {"required": True, "content": content}}


def example_prompt(catalog: Catalog) -> str:
    """A prompt that suits this model."""
    prompts = catalog.space.example_prompts if catalog.space else ()
    return prompts[0] if prompts else "Hello"


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
