"""Bodies that are no good request, by what is wrong with them."""

import json

from tests.api.bad_preferences import (
    ALL_ZERO,
    NEGATIVE,
    NESTED,
    PREFERENCE_TYPES,
    TOO_LARGE,
    UNKNOWN_DIMENSIONS,
    WRONG_LENGTHS,
)
from tests.api.cases import LIST, OBJECT, SECRET, STRING, Cases, fields, message, preferences, with_field
from tests.api.chatting import body

TYPES: Cases = [
    *fields(
        {
            "n": [STRING, OBJECT, LIST, '"1"', "1.5", "1.0", "true"],
            "max_tokens": [STRING, OBJECT, LIST, '"5"', "5.5", "true", "1e2"],
            "max_completion_tokens": [STRING, OBJECT, LIST, "5.5", "false"],
            "temperature": [STRING, OBJECT, LIST, '"0.5"', "true"],
            "top_p": [STRING, OBJECT, LIST, '"0.5"', "true"],
            "seed": [STRING, OBJECT, LIST, '"1"', "1.5", "true"],
            "top_k": [STRING, OBJECT, LIST, "1.5", "true"],
            "min_tokens": [STRING, OBJECT, LIST, "1.5", "true"],
            "min_p": [STRING, OBJECT, LIST, '"0.1"', "false"],
            "frequency_penalty": [STRING, OBJECT, '"1"', "false"],
            "presence_penalty": [STRING, LIST, '"1"', "true"],
            "repetition_penalty": [STRING, LIST, '"1"', "true"],
            "logit_bias": [STRING, LIST, "[]", "0", "true"],
            "top_logprobs": [STRING, OBJECT, LIST, "1.5", "true"],
            "logprobs": [STRING, OBJECT, LIST, "1", "0", '"true"'],
            "stream": [STRING, OBJECT, LIST, "1", '"true"'],
            "ignore_eos": [STRING, OBJECT, LIST, "1", '"true"'],
            "stop": [OBJECT, "1", "true"],
            "stop_token_ids": [STRING, OBJECT, "1"],
            "stream_options": [STRING, LIST, "1", "true"],
            "messages": [STRING, OBJECT, "1", "null", "true"],
            "model": [OBJECT, LIST, "1", "true"],
            "user": [OBJECT, LIST, "1"],
            "metadata": [STRING, LIST, "1"],
            "parallel_tool_calls": [STRING, "1"],
            "chat_template_kwargs": [STRING, LIST, "1", "true"],
        }
    ),
    (with_field("logit_bias", '{"5": "1"}'), "logit_bias.5"),
    (with_field("logit_bias", '{"5": true}'), "logit_bias.5"),
    (with_field("logit_bias", '{"5": null}'), "logit_bias.5"),
    (with_field("stop", '["a", 1]'), "stop[1]"),
    (with_field("stop_token_ids", '[1, "2"]'), "stop_token_ids[1]"),
    (with_field("stop_token_ids", "[1, 2.5]"), "stop_token_ids[1]"),
    (with_field("stop_token_ids", "[true]"), "stop_token_ids[0]"),
    (with_field("metadata", '{"a": 1}'), "metadata.a"),
    (with_field("stream_options", '{"include_usage": 1}'), "stream_options.include_usage"),
    (b"null", None),
    (b"1", None),
    (b"[]", None),
    (STRING.encode(), None),
]

RANGES: Cases = [
    *fields(
        {
            "n": ["0", "-1", "17", "1000000", "1" + "0" * 100],
            "max_tokens": ["0", "-1", "1" + "0" * 100, "503"],
            "max_completion_tokens": ["0", "-5"],
            "temperature": ["-0.1", "2.1", "-1e-300", "1e300"],
            "top_p": ["0", "-0.0", "1.0000001", "-1"],
            "seed": ["9223372036854775808", "-9223372036854775809", "1" + "0" * 4000],
            "top_k": ["-2", "9223372036854775808"],
            "min_tokens": ["-1", "13", "9223372036854775808"],
            "min_p": ["-0.01", "1.01", "1e300"],
            "frequency_penalty": ["-2.1", "2.0001"],
            "presence_penalty": ["-3", "2.1"],
            "repetition_penalty": ["0", "-1", "0.001", "101"],
            "logit_bias": [
                *(
                    '{"354": 1}',
                    '{"-1": 1}',
                    '{"a": 1}',
                    '{"": 1}',
                    '{"05": 1}',
                    '{"5.0": 1}',
                    '{" 5": 1}',
                    '{"\\u0665": 1}',
                ),
                json.dumps({"1" * 5000: 1}),
                json.dumps({str(token): 1 for token in range(1025)}),
            ],
            "top_logprobs": ['-1, "logprobs": true', '21, "logprobs": true'],
            "stop": ['["a", "b", "c", "d", "e"]', '["' + "a" * 1025 + '", "b", "c", "d", "e"]'],
            "messages": ["[]", json.dumps(body()["messages"] * 2049), json.dumps([1] * 1_000_000)],
            "metadata": [json.dumps({str(index): "" for index in range(17)})],
            "stop_token_ids": [json.dumps([1] * 129), "[354]", "[9223372036854775807]"],
        }
    ),
    (with_field("logit_bias", '{"5": 100.5}'), "logit_bias.5"),
    (with_field("logit_bias", '{"5": 1, "6": -101}'), "logit_bias.6"),
    (with_field("stop", '""'), "stop[0]"),
    (with_field("stop", '["a", ""]'), "stop[1]"),
    (with_field("stop", f'"{SECRET * 100}"'), "stop[0]"),
    (with_field("stop_token_ids", "[-1]"), "stop_token_ids[0]"),
    message(json.dumps({"role": "user", "content": [{"type": "text", "text": ""}] * 1025}), "messages[0].content"),
]

NUMBERS = ("temperature", "top_p", "n", "max_tokens", "seed", "frequency_penalty", "presence_penalty", "min_p")
NAN: Cases = [
    *preferences(
        "NaN",
        "[NaN, 1, 1]",
        '{"helpful": NaN}',
        '{"concise": 1, "helpful": NaN}',
        "[1, 1, NaN]",
        "[NaN]",
        "[NaN, NaN, NaN]",
    ),
    *((with_field(name, "NaN"), name) for name in NUMBERS),
    (with_field("logit_bias", '{"5": NaN}'), "logit_bias.5"),
    (with_field("chat_template_kwargs", '{"a": NaN}'), "chat_template_kwargs"),
    (with_field("chat_template_kwargs", '{"a": [{"b": [-Infinity]}]}'), "chat_template_kwargs"),
    (with_field("chat_template_kwargs", '{"a": [1e400]}'), "chat_template_kwargs"),
]
INFINITIES: Cases = [
    *preferences(
        "Infinity", "[Infinity, 1, 1]", '{"helpful": Infinity}', "[-Infinity, 1, 1]", '{"helpful": -Infinity}'
    ),
    *((with_field(name, value), name) for name in NUMBERS[:4] for value in ("Infinity", "-Infinity")),
]
BEYOND_FLOATS: Cases = [
    *preferences(
        "1e400", "[1e400, 1, 1]", '{"helpful": 1e400}', "[-1e400, 1, 1]", "[1e309, 0, 0]", f"[1{'0' * 400}, 1, 1]"
    ),
    *(
        (with_field(name, value), name)
        for name in ("temperature", "top_p", "frequency_penalty")
        for value in ("1e400", "-1e400")
    ),
]

DEPTHS: Cases = [
    (with_field(name, opening * depth), None)
    for name in ("preference", "messages", "unknown", "metadata")
    for opening, depth in (("[", 100_000), ('{"a":', 100_000), ("[", 300))
] + [(b"[" * 100_000, None), (b"[" * 1_000_000 + b"]" * 1_000_000, None), (b'{"messages":' * 50_000, None)]

# A lone surrogate as an escape is one thing, and as bytes (CESU-8) another.
SURROGATES: Cases = [
    (with_field("messages", f'[{{"role": "user", "content": "{escape}"}}]'), None)
    for escape in (r"\ud800", r"\udfff", r"a\ud83d", r"\ude00\ud83d", r"\ud83d\ud83d", r"\ud83dx", r"\uD800\n")
] + [
    (with_field("preference", r'{"\ud800": 1}'), None),
    (with_field("user", r'"\udc00"'), None),
    (with_field("stop", r'"\udbff"'), None),
    (with_field("model", r'"\ud800"'), None),
    (b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}', None),
    (b'{"\xed\xbf\xbf": 1}', None),
]
GOOD = json.dumps(body(preference={"helpful": 0.7, "concise": 0.3})).encode()
TRUNCATED: Cases = [(GOOD[:length], None) for length in range(0, len(GOOD), max(1, len(GOOD) // 25))] + [
    (GOOD[:-1], None),
    (GOOD + b"}", None),
    (GOOD + b" x", None),
    (GOOD + GOOD, None),
]
NO_JSON: Cases = [
    (b"\xff\xfe", None),
    (b"\xef\xbb\xbf" + GOOD, None),
    (GOOD.decode().encode("utf-16"), None),
    (GOOD.decode().encode("utf-32"), None),
    (GOOD.replace(b'"', b"'"), None),
    (GOOD.replace(b"How", b"\xe9"), None),
    (GOOD.replace(b"How", b"\x00"), None),
    (GOOD.replace(b"How", b"\n"), None),
    (GOOD.replace(b"0.7", b".7"), None),
    (GOOD.replace(b"0.7", b"0x7"), None),
    (GOOD.replace(b"0.7", b"07"), None),
    (GOOD.replace(b"0.7", b"+1"), None),
    (GOOD.replace(b"0.7", b"nan"), None),
    (GOOD.replace(b"}", b",}"), None),
    (b"// a comment\n" + GOOD, None),
    (b"messages=hello&n=1", None),
    (b"\x1f\x8b\x08\x00", None),
]
UNKNOWN_FIELDS: Cases = [
    (with_field(name, STRING), name)
    for name in ("lambda", "preferences", "Preference", "best_of", "echo", "typical_p", "__proto__")
] + [
    (with_field("a\x00b\x1b[2J", "1"), r"a\x00b\x1b[2J"),
    (with_field("\U0001f600", "1"), r"\U0001f600"),
    (with_field("\u202egnp", "1"), r"\u202egnp"),
    (with_field("x" * 100_000, "1"), "x" * 64),
    (with_field("\U0001f600" * 50, "1"), (r"\U0001f600" * 50)[:64]),
    (with_field("stream_options", '{"usage": true}'), "stream_options.usage"),
    message(f'{{"role": "user", "content": "a", "weight": "{SECRET}"}}', "messages[0].weight"),
    message('{"role": "user", "content": [{"type": "text", "text": "a", "b": 1}]}', "messages[0].content[0].b"),
]
UNSUPPORTED: Cases = [
    *fields(
        {
            "tools": ['[{"type": "function"}]', "{}"],
            "functions": ['[{"name": "f"}]'],
            "tool_choice": ['"required"', '{"type": "function"}', "0"],
            "function_call": ['{"name": "f"}'],
            "store": ["true", "0"],
            "audio": ["{}"],
            "chat_template": [STRING, '"{{ messages }}"', "{}"],
            "modalities": ['["text", "audio"]', "[]"],
            "prediction": ['{"type": "content"}'],
            "reasoning_effort": ['"high"', '"none "'],
            "verbosity": ['"low"'],
            "service_tier": ['"flex"'],
            "web_search_options": ["{}"],
            "moderation": ["{}"],
            "prompt_cache_options": ["{}"],
        }
    ),
    (with_field("stream_options", '{"include_obfuscation": true}'), "stream_options.include_obfuscation"),
]
_USER = '"role": "user"'
MESSAGES: Cases = [
    message("1", "messages[0]"),
    message("null", "messages[0]"),
    message(LIST, "messages[0]"),
    message("{}", "messages[0].role"),
    message('{"role": "user"}', "messages[0].content"),
    message('{"content": "a"}', "messages[0].role"),
    message(f'{{"role": "{SECRET}", "content": "a"}}', "messages[0].role"),
    message('{"role": "tool", "content": "a"}', "messages[0].role"),
    message('{"role": "User", "content": "a"}', "messages[0].role"),
    message('{"role": "user<|end|>", "content": "a"}', "messages[0].role"),
    message('{"role": null, "content": "a"}', "messages[0].role"),
    message(f'{{{_USER}, "content": null}}', "messages[0].content"),
    message(f'{{{_USER}, "content": 1}}', "messages[0].content"),
    message(f'{{{_USER}, "content": {{}}}}', "messages[0].content"),
    message(f'{{{_USER}, "content": ["{SECRET}"]}}', "messages[0].content[0]"),
    message(f'{{{_USER}, "content": [{{"type": "image_url"}}]}}', "messages[0].content[0].type"),
    message(f'{{{_USER}, "content": [{{"type": "text"}}]}}', "messages[0].content[0].text"),
    message(f'{{{_USER}, "content": [{{"type": "text", "text": 1}}]}}', "messages[0].content[0].text"),
    message(f'{{{_USER}, "content": "a", "name": "{SECRET}"}}', "messages[0].name"),
    message('{"role": "assistant", "content": "a", "refusal": "no"}', "messages[0].refusal"),
    message('{"role": "assistant", "content": "a", "tool_calls": [{}]}', "messages[0].tool_calls"),
    message('{"role": "assistant", "content": "a", "function_call": {}}', "messages[0].function_call"),
    message('{"role": "assistant", "content": "a", "audio": {}}', "messages[0].audio"),
    message('{"role": "assistant", "content": "a", "annotations": [1]}', "messages[0].annotations"),
    (b"{}", "messages"),
    (b'{"model": "tiny"}', "messages"),
]
_NAMED = '{"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}'
_FORMAT = "response_format"
FORMATS: Cases = [
    *fields({_FORMAT: ['"text"', "1", "[]", STRING, LIST, "true"]}),
    *(
        (with_field(_FORMAT, value), f"{_FORMAT}{place}")
        for value, place in (
            ("{}", ".type"),
            ('{"type": null}', ".type"),
            (f'{{"type": {STRING}}}', ".type"),
            ('{"type": "grammar"}', ".type"),
            ('{"type": "json_object", "schema": {}}', ".schema"),
            ('{"type": "json_schema"}', ""),
            ('{"type": "json_schema", "json_schema": null}', ""),
            ('{"type": "json_object", "json_schema": {"name": "a", "schema": {}}}', ""),
            ('{"type": "text", "json_schema": {"name": "a", "schema": {}}}', ""),
            ('{"type": "json_schema", "json_schema": {}}', ".json_schema.name"),
            ('{"type": "json_schema", "json_schema": []}', ".json_schema"),
            ('{"type": "json_schema", "json_schema": {"name": "a"}}', ".json_schema.schema"),
            ('{"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}', ".json_schema.name"),
            ('{"type": "json_schema", "json_schema": {"name": "", "schema": {}}}', ".json_schema.name"),
            ('{"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "b": 1}}', ".json_schema.b"),
            (
                '{"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": "yes"}}',
                ".json_schema.strict",
            ),
            *(
                (_NAMED.replace("SCHEMA", value), ".json_schema.schema")
                for value in ("1", "true", "[]", STRING, "null")
            ),
            (_NAMED.replace("SCHEMA", '{"minimum": 1e400}'), ".json_schema.schema"),
            (_NAMED.replace("SCHEMA", '{"type": "object", "type": "object"}'), ".json_schema.schema.type"),
        )
    ),
]
SCHEMAS: Cases = [
    (with_field(_FORMAT, _NAMED.replace("SCHEMA", schema)), _FORMAT)
    for schema in (
        f'{{"type": {STRING}}}',
        '{"type": 1}',
        '{"properties": []}',
        '{"enum": []}',
        f'{{"pattern": "({SECRET}", "type": "string"}}',
        f'{{"type": "string", "format": {STRING}}}',
        f'{{"$ref": "#/{SECRET}"}}',
        '{"$ref": "http://127.0.0.1:9/schema.json"}',
        '{"$ref": "file:///etc/passwd"}',
        '{"$ref": "#"}',
        '{"not": {}}',
        f'{{"type": "object", "required": [{STRING}], "additionalProperties": false}}',
        '{"type": "string", "minLength": 3, "maxLength": 2}',
        '{"x-guidance": {"lenient": true}, "not": {}}',
        f'{{"const": "{SECRET * 6000}"}}',
    )
]
TEMPLATE_VARIABLES: Cases = [
    *(
        (with_field("chat_template_kwargs", f'{{"{name}": {STRING}}}'), f"chat_template_kwargs.{name}")
        for name in (
            "messages",
            "tools",
            "documents",
            "add_generation_prompt",
            "bos_token",
            "raise_exception",
            "range",
            "self",
            "",
        )
    ),
    (with_field("chat_template_kwargs", f'{{"enable_thinking": {STRING}}}'), "chat_template_kwargs.enable_thinking"),
    (with_field("chat_template_kwargs", '{"a\\u0000": 1}'), r"chat_template_kwargs.a\x00"),
]
COMBINATIONS: Cases = [
    (json.dumps(body(stream_options={"include_usage": True})).encode(), "stream_options"),
    (json.dumps(body(stream_options={}, stream=False)).encode(), "stream_options"),
    (json.dumps(body(top_logprobs=2)).encode(), "top_logprobs"),
    (json.dumps(body(top_logprobs=0, logprobs=False)).encode(), "top_logprobs"),
    (json.dumps(body(max_completion_tokens=5)).encode(), "max_tokens"),
    (json.dumps(body(model="tiny:base", preference=[1, 0, 0])).encode(), "preference"),
    (json.dumps(body(model=SECRET)).encode(), "model"),
    (json.dumps(body(model="tiny:")).encode(), "model"),
    (json.dumps(body(model="tiny:nobody")).encode(), "model"),
    (json.dumps(body(model="")).encode(), "model"),
]
DUPLICATES: Cases = [
    (with_field("n", '1, "n": 1'), "n"),
    (with_field("user", f'"a", "user": "{SECRET}"'), "user"),
    (with_field("preference", 'null, "preference": [1, 0, 0]'), "preference"),
    (with_field("preference", '{"helpful": 1, "helpful": 2}'), "preference"),
    (with_field("preference", r'{"helpful": 1, "\u0068elpful": 1}'), "preference"),
    (with_field("metadata", '{"a": "b", "a": "b"}'), "metadata.a"),
    (with_field("logit_bias", '{"5": 1, "5": 1}'), "logit_bias.5"),
    (with_field("metadata", '{"\u00e9": "b", "\u00e9": "b"}'), r"metadata.\xe9"),
    message('{"role": "user", "role": "system", "content": "a"}', "messages[0].role"),
    message(
        '{"role": "user", "content": "a"}, {"role": "user", "content": "a", "content": "a"}', "messages[1].content"
    ),
    message('{"role": "user", "content": [{"type": "text", "text": "", "text": ""}]}', "messages[0].content[0].text"),
    (b'{"n": 1, "n": 1, "messages": [{"role": "user", "content": "a", "content": "a"}]}', "n"),
]
MANY_ERRORS: Cases = [
    (json.dumps({f"k{index}": SECRET for index in range(100_000)}).encode(), None),
    (with_field("messages", json.dumps([{"a": 1}] * 200)), None),
    (json.dumps({f"\u00e9{index}": {"a": SECRET} for index in range(101)}).encode(), None),
]
TEN_MB: Cases = [
    (with_field("messages", json.dumps([{"role": "user", "content": "a" * 10_000_000}])), None),
    (with_field("preference", json.dumps([1] * 3_400_000)), None),
    (with_field("preference", '"' + "a" * 10_000_000 + '"'), None),
    (with_field("a" * 10_000_000, "1"), None),
    (with_field("unknown", "1" * 10_000_000), None),
    (b" " * 10_000_000 + GOOD, None),
    (GOOD + b" " * 10_000_000, None),
    (b"[" * 10_000_000, None),
    (b"\x00" * 10_000_000, None),
    (b"\xff" * 10_000_000, None),
    (b'"' + b"\\ud800" * 1_700_000 + b'"', None),
]

CLASSES: dict[str, Cases] = {
    "types": TYPES,
    "ranges": RANGES,
    "nan": NAN,
    "infinities": INFINITIES,
    "beyond floats": BEYOND_FLOATS,
    "negative": NEGATIVE,
    "too large": TOO_LARGE,
    "all zero": ALL_ZERO,
    "unknown dimensions": UNKNOWN_DIMENSIONS,
    "wrong lengths": WRONG_LENGTHS,
    "preference types": PREFERENCE_TYPES,
    "nested": NESTED,
    "depths": DEPTHS,
    "surrogates": SURROGATES,
    "truncated": TRUNCATED,
    "no JSON": NO_JSON,
    "unknown fields": UNKNOWN_FIELDS,
    "unsupported": UNSUPPORTED,
    "messages": MESSAGES,
    "formats": FORMATS,
    "schemas": SCHEMAS,
    "template variables": TEMPLATE_VARIABLES,
    "combinations": COMBINATIONS,
    "duplicates": DUPLICATES,
    "many errors": MANY_ERRORS,
    "10 MB": TEN_MB,
}
