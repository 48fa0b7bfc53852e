"""Good requests, and what to put into them that does not belong there."""

from typing import Any

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOKENIZE, DETOKENIZE = "/v1/tokenize", "/v1/detokenize"

_QUESTION = {"role": "user", "content": "How do I sharpen a knife?"}
_FEW: dict[str, Any] = {"max_tokens": 3}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "tool": {"type": "string", "pattern": "^[a-z]{1,9}$"},
        "steps": {"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 1},
        "minutes": {"type": "integer", "minimum": 1, "maximum": 60},
        "risk": {"enum": ["low", "high", None]},
        "next": {"anyOf": [{"$ref": "#/$defs/step"}, {"type": "null"}]},
    },
    "required": ["tool", "risk"],
    "additionalProperties": False,
    "$defs": {"step": {"type": "object", "properties": {"next": {"$ref": "#/$defs/step"}}}},
}

VALID: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": [_QUESTION], **_FEW}),
    (CHAT, {"messages": [_QUESTION], "preference": {"helpful": 0.7, "concise": 0.3}, "temperature": 0.5, **_FEW}),
    (CHAT, {"messages": [_QUESTION], "preference": [1, 2, 0.5], "n": 2, "seed": 4, "top_p": 0.9, **_FEW}),
    (CHAT, {"messages": [_QUESTION], "stream": True, "stream_options": {"include_usage": True}, **_FEW}),
    (CHAT, {"messages": [_QUESTION], "logprobs": True, "top_logprobs": 3, "stop": ["a", "\n"], **_FEW}),
    (
        CHAT,
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                _QUESTION,
                {"role": "assistant", "content": [{"type": "text", "text": "With a stone."}]},
                {"role": "user", "content": [{"type": "text", "text": "Which?"}, {"type": "text", "text": " Why?"}]},
            ],
            "logit_bias": {"50": -100, "51": 2.5},
            "frequency_penalty": 0.5,
            "presence_penalty": -0.5,
            "repetition_penalty": 1.1,
            "min_p": 0.05,
            "top_k": 20,
            "cache_salt": "one of mine",
            "user": "somebody",
            "metadata": {"a": "b"},
            **_FEW,
        },
    ),
    (CHAT, {"messages": [_QUESTION], "response_format": {"type": "json_object"}, **_FEW}),
    (
        CHAT,
        {
            "messages": [_QUESTION],
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SCHEMA}},
            **_FEW,
        },
    ),
    (COMPLETIONS, {"prompt": "Once upon a time", **_FEW}),
    (COMPLETIONS, {"prompt": [5, 6, 7, 8], "seed": -1, "temperature": 1, **_FEW}),
    (COMPLETIONS, {"prompt": ["a", "b"], "echo": True, "logprobs": 2, **_FEW}),
    (COMPLETIONS, {"prompt": [[5, 6], [7]], "stream": True, "min_tokens": 1, "stop_token_ids": [9], **_FEW}),
    (COMPLETIONS, {"prompt": "Score me", "echo": True, "logprobs": 0, "max_tokens": 0}),
    (TOKENIZE, {"prompt": "How many tokens are these?"}),
    (TOKENIZE, {"messages": [_QUESTION]}),
    (DETOKENIZE, {"tokens": [50, 51, 52]}),
]

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 2**31, 2**63, -(2**63) - 1, 10**40, 1e308, 5e-324, 3.0, 17),
    *("", " ", "a", "0", "null", "NaN", "\x00", "\x7f", "\u202e", "\ufeff", "\U0001f600" * 40, "e\u0301", "<|end|>"),
    *("a" * 5000, "../../etc/passwd", "{{ 7 * 7 }}", "{% for a in range(10**9) %}{% endfor %}", "'; --", "%s%n"),
    *([], {}, [[]], [None], [{}], {"": ""}, {"a": {"b": {"c": []}}}, [1, "a", None], {"role": "user"}, [0] * 500),
    *({"helpful": 1}, {"helpful": -1}, {"helpful": 0}, [1, 1, 1], [1e6, 1e-300, 0], {"helpful": 1e300}, "helpful"),
    *({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}, {"type": "text"}),
]

NAMES = [
    *("unknown", "Preference", "", "__proto__", "constructor", "a" * 300, "\x00", "prompt", "messages", "tools", "n"),
    *("best_of", "suffix", "lambda", "functions", "audio", "response_format", "chat_template", "chat_template_kwargs"),
]

SCHEMAS: list[Any] = [
    *({"$ref": "#"}, {"$ref": "#/a"}, {"$ref": "http://127.0.0.1/a"}, {"allOf": [{"$ref": "#"}]}, {"not": {}}),
    *(
        {"type": "string", "pattern": each}
        for each in ("(a+)+$", "a{1,100000}", "(?=a)", "[", "\\p{L}{999}", ".*" * 200)
    ),
    *({"type": "string", "minLength": each} for each in (10**9, -1, "a", 1e300)),
    *({"type": "array", "minItems": 10**9}, {"type": "array", "uniqueItems": True}, {"type": []}, {"type": "a"}),
    *(
        {"multipleOf": 0},
        {"minimum": 1e308, "maximum": -1e308},
        {"enum": list(range(5000))},
        {"enum": []},
        {"const": {}},
    ),
    *(
        {"required": ["a"] * 3000},
        {"properties": {str(number): {} for number in range(2000)}},
        {"if": {}, "then": False},
    ),
    *(
        {"patternProperties": {"(": {}}},
        {"format": "date-time"},
        {"x-guidance": {}},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}},
    ),
    *({"anyOf": [{"type": "object"}] * 500}, {"oneOf": []}, False, True, None, "object", []),
]
