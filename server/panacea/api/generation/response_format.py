"""The request field `response_format`: what an answer has to look like."""

import json
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from panacea.api.fields import FINITE, Strict
from panacea.engine.sampling_params import MAX_SCHEMA_CHARS
from panacea.errors import RequestError

ANY_OBJECT = '{"type":"object"}'


class JsonSchema(Strict):
    """A schema with a name, as OpenAI has it."""

    name: Annotated[
        str,
        Field(pattern="^[a-zA-Z0-9_-]{1,64}$", description="Changes nothing; letters, digits, underscores, dashes."),
    ]
    description: Annotated[str | None, Field(description="Changes nothing: tell the model in a message.")] = None
    json_schema: Annotated[
        dict[str, Any],
        FINITE,
        Field(
            alias="schema",
            description="JSON Schema. What it does not say is free, as the standard has it; properties come in its "
            f"order. Keywords that cannot be enforced are an error. At most {MAX_SCHEMA_CHARS} characters.",
        ),
    ]
    strict: Annotated[
        bool | None, Field(description="Changes nothing: every answer follows its schema, and not merely as a rule.")
    ] = None


class ResponseFormat(Strict):
    """What an answer has to look like; nothing else can be said while one is in force."""

    type: Annotated[
        Literal["text", "json_object", "json_schema"],
        Field(description="Any text; any JSON object; JSON that follows `json_schema`."),
    ]
    json_schema: Annotated[JsonSchema | None, Field(description="With type json_schema, and only then.")] = None

    @cached_property
    def schema_text(self) -> str | None:
        """The schema to follow, as JSON with its names in their order; None for any text."""
        match self.type:
            case "text":
                return None
            case "json_object":
                return ANY_OBJECT
            case "json_schema":
                assert self.json_schema is not None, "the body was checked"
                return json.dumps(self.json_schema.json_schema, separators=(",", ":"))

    def check(self) -> None:
        """Raises `RequestError` for fields that do not fit together."""
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise RequestError("response_format.json_schema goes with the type json_schema", "response_format")
        if self.json_schema is not None and "x-guidance" in self.json_schema.json_schema:
            raise RequestError("response_format: x-guidance is not supported in a schema", "response_format")
        if len(self.schema_text or "") > MAX_SCHEMA_CHARS:
            raise RequestError(
                f"response_format: a schema has at most {MAX_SCHEMA_CHARS} characters", "response_format"
            )
