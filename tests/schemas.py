"""JSON schemas for tests: answers of a tiny model end soon under these."""

from typing import Any

_LINK: dict[str, Any] = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/link"}, {"type": "null"}]}, "value": {"type": "boolean"}},
    "required": ["next", "value"],
    "additionalProperties": False,
}


def closed(**properties: Any) -> dict[str, Any]:
    """An object with exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS: dict[str, dict[str, Any]] = {
    "person": closed(
        name={"type": "string", "minLength": 2, "maxLength": 8},
        age={"type": "integer", "minimum": 0, "maximum": 120},
        tags={"type": "array", "items": {"enum": ["old", "new", "b\u00e4r"]}, "minItems": 1, "maxItems": 3},
    ),
    "numbers": {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": -2, "maximum": 3.5},
        "minItems": 2,
        "maxItems": 4,
    },
    "multiple": {"type": "integer", "minimum": 10, "maximum": 400, "multipleOf": 7},
    "pattern": closed(
        code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"}, day={"format": "date", "type": "string"}
    ),
    "optional": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"const": 1.5}, "c": {"type": "null"}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "choice": {"anyOf": [{"type": "boolean"}, closed(x={"enum": [1, "one", None]}), {"enum": ["yes", "no"]}]},
    "one": {
        "oneOf": [closed(kind={"const": "a"}, n={"type": "boolean"}), closed(kind={"const": "b"}, m={"type": "null"})]
    },
    "tuple": {"type": "array", "prefixItems": [{"type": "boolean"}, {"const": "x"}], "items": False, "minItems": 2},
    "all": {"allOf": [{"type": "integer", "minimum": 5}, {"maximum": 99}]},
    "recursive": {"$ref": "#/$defs/link", "$defs": {"link": _LINK}},
    "map": {
        "type": "object",
        "patternProperties": {"^[ab]{1,2}$": {"type": "boolean"}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 2,
    },
    "text": {"type": "string", "maxLength": 12},
}


def chain(length: int) -> dict[str, Any]:
    """Definitions that lead one to the next, so often."""
    links = {f"d{index}": {"$ref": f"#/$defs/d{index + 1}"} for index in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "integer"}}}


ENDLESS_WORK: dict[str, Any] = {"type": "integer", "multipleOf": 7919 * 7907}
"""Compiles for minutes, if one lets it."""

TOO_MUCH_LATER: dict[str, Any] = {
    "type": "string",
    "allOf": [{"pattern": f"{char}.*{char}"} for char in "abcdef"],
}
"""Compiles, and is beyond the limits of a step once an answer has begun."""
