"""The OpenAPI document: FastAPI's, with the bodies that routes read and write themselves."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from panacea.api.error_responses import ErrorDetail
from panacea.api.generation.chat_request import ChatRequest
from panacea.api.generation.chat_response import ChatCompletionChunk
from panacea.api.generation.completion_request import CompletionRequest
from panacea.api.information.tokenization_request import DetokenizeRequest, TokenizeRequest


class DocumentedApp(FastAPI):
    """An application whose document says all that its routes do."""

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
    """A success means what its body's description says; and examples of errors get their nulls, which FastAPI drops."""
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
    """No route answers 422: errors have one shape here, and a bad body is a 400."""
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
