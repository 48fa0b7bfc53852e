"""The OpenAPI document: FastAPI's, plus the bodies of routes that read and write them without FastAPI."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from panacea.api.error_responses import ErrorDetail
from panacea.api.generation.chat_request import ChatRequest
from panacea.api.generation.chat_response import ChatCompletionChunk
from panacea.api.generation.completion_request import CompletionRequest
from panacea.api.information.tokenization_request import DetokenizeRequest, TokenizeRequest


class DocumentedApp(FastAPI):
    """An application whose OpenAPI document describes all bodies of its routes."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            _, definitions = models_json_schema(
                [
                    (ChatRequest, "validation"),
                    (ChatCompletionChunk, "serialization"),
                    (CompletionRequest, "validation"),
                    (TokenizeRequest, "validation"),
                    (DetokenizeRequest, "validation"),
                ],
                ref_template="#/components/schemas/{model}",
            )
            document["components"]["schemas"].update(definitions["$defs"])
            _drop_fastapis_errors(document)
            _describe_answers(document)
        return super().openapi()


def _describe_answers(document: dict[str, Any]) -> None:
    """Describes a success by its body's description, and restores the nulls that FastAPI drops from error examples."""
    schemas = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            success = operation["responses"]["200"]
            reference = success["content"].get("application/json", {}).get("schema", {}).get("$ref")
            if reference is not None:
                success["description"] = schemas[reference.rpartition("/")[2]]["description"]
            for answer in operation["responses"].values():
                example = answer["content"].get("application/json", {}).get("example")
                if example is not None:
                    example["error"] = {name: example["error"].get(name) for name in ErrorDetail.model_fields}


def _drop_fastapis_errors(document: dict[str, Any]) -> None:
    """Removes FastAPI's 422 responses. This server answers 400 to an invalid body, in its own error shape."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
