"""The request field `response_format`: the required format of an answer."""

import json
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field

from panacea.api.fields import FINITE, Strict
from panacea.engine.sampling_params import MAX_SCHEMA_CHARS
from panacea.errors import RequestError

ANY_OBJECT = '{"type":"object"}'


class JsonSchema(Strict):
    """A named JSON schema, in OpenAI's shape."""

    name: Annotated[
        str,
        Field(
            pattern="^[a-zA-Z0-9_-]{1,64}$",
            description="No effect. Up to 64 letters, digits, underscores and dashes.",
        ),
    ]
    description: Annotated[
        str | None, Field(description="No effect: the model does not see it. Describe the format in a message.")
    ] = None
    json_schema: Annotated[
        dict[str, Any],
        FINITE,
        Field(
            alias="schema",
            description="The JSON schema. As in the standard, it allows anything that it does not restrict. Properties "
            "are generated in its order. Keywords and numbers that cannot be enforced are an error. At most "
            f"{MAX_SCHEMA_CHARS} characters. Answers have no whitespace between their parts, unless the schema has the "
            'member "x-guidance": {"whitespace_flexible": true}.',
        ),
    ]
    strict: Annotated[bool | None, Field(description="No effect: the schema is always enforced.")] = None


class ResponseFormat(Strict):
    """The required format of an answer. The model can only generate tokens that conform to it."""

    type: Annotated[
        Literal["text", "json_object", "json_schema"],
        Field(
            description="text: any text. json_object: any JSON object. json_schema: JSON that follows `json_schema`."
        ),
    ]
    json_schema: Annotated[
        JsonSchema | None, Field(description="The schema. Required for type json_schema, and not allowed for others.")
    ] = None

    @cached_property
    def schema_text(self) -> str | None:
        """The schema as JSON, with the names in their original order. None if any text is allowed."""
        match self.type:
            case "text":
                return None
            case "json_object":
                return ANY_OBJECT
            case "json_schema":
                assert self.json_schema is not None, "the body was checked"
                return json.dumps(self.json_schema.json_schema, separators=(",", ":"))

    def check(self) -> None:
        """Raises `RequestError` for fields that contradict each other."""
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise RequestError(
                "response_format.json_schema is required for the type json_schema and not allowed for others",
                "response_format",
            )
        if len(self.schema_text or "") > MAX_SCHEMA_CHARS:
            raise RequestError(
                f"response_format: the schema must have at most {MAX_SCHEMA_CHARS} characters", "response_format"
            )
