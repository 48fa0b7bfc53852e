"""Bodies that are no good request for text completions: those of chat that have a counterpart, and what is new."""

import json

from tests.api.bad_bodies import CLASSES as CHAT_CLASSES
from tests.api.cases import LIST, OBJECT, SECRET, STRING, Cases, fields, with_field
from tests.api.chatting import CHAT, COMPLETIONS, PROMPTS, body


def _prompt(value: str, param: str = "prompt") -> tuple[bytes, str]:
    return with_field("prompt", value, COMPLETIONS), param


def _body(**values: object) -> bytes:
    return json.dumps(body(COMPLETIONS, **values)).encode()


def _counterparts(cases: Cases) -> Cases:
    """The same with a prompt in place of the messages, where these are not what is bad."""
    messages, prompt = (json.dumps(PROMPTS[path])[1:-1].encode() for path in (CHAT, COMPLETIONS))
    return [(content.replace(messages, prompt), param) for content, param in cases if messages in content]


PROMPT_TYPES: Cases = [
    *(_prompt(value) for value in ("null", "1", "true", "1.5", OBJECT, "[null]", "[1.5]", f"[{OBJECT}]")),
    (b"{}", "prompt"),
    (b'{"model": "tiny"}', "prompt"),
    _prompt("[true]", "prompt[0]"),
    _prompt("[1, 2.0]", "prompt[1]"),
    _prompt("[1, true]", "prompt[1]"),
    _prompt(f"[1, {STRING}]", "prompt[1]"),
    _prompt("[1, [2]]", "prompt[1]"),
    _prompt("[1, null]", "prompt[1]"),
    _prompt('["a", 1]', "prompt[1]"),
    _prompt('["a", ["b"]]', "prompt[1]"),
    _prompt('["a", null]', "prompt[1]"),
    _prompt("[[1], 2]", "prompt[1]"),
    _prompt(f"[[1], {STRING}]", "prompt[1]"),
    _prompt(f"[{LIST}]", "prompt[0][0]"),
    _prompt("[[1], [2, true]]", "prompt[1][1]"),
    _prompt("[[[1]]]", "prompt[0][0]"),
]
PROMPT_RANGES: Cases = [
    _prompt('""'),
    _prompt('["a", ""]'),
    _prompt("[]"),
    _prompt("[[]]", "prompt[0]"),
    _prompt("[[1], []]", "prompt[1]"),
    _prompt("[-1]", "prompt[0]"),
    _prompt("[[1], [2, -1]]", "prompt[1][1]"),
    _prompt("[354]"),
    _prompt("[[5], [6, 354]]"),
    _prompt(f"[{10**100}]"),
    _prompt(f"[5, {2**64}]"),
    _prompt(json.dumps(["a"] * 129)),
    _prompt(json.dumps([[5]] * 129)),
    _prompt(json.dumps(["a"] * 500_000)),
    _prompt(json.dumps("? " * 512)),
    _prompt(json.dumps([5] * 512)),
    _prompt(json.dumps([[5], [5] * 512])),
    _prompt(json.dumps([5] * 1_000_000)),
    (_body(prompt=["a"] * 65, n=2), "n"),
    (_body(prompt=[[5]] * 9, n=16), "n"),
]
FIELDS: Cases = [
    *fields(
        {
            "n": [STRING, "0", "17", "1.5", "true"],
            "max_tokens": [STRING, "0", "-1", "1.5", "true", "506", "false", "0.0"],
            "echo": [STRING, LIST, "1", "0"],
            "logprobs": [STRING, LIST, "true", "false", "-1", "6", "1.5"],
            "best_of": [STRING, "0", "true", "2", "16"],
            "suffix": ["1", STRING, LIST],
            "stop": [OBJECT, "1", '["a", "b", "c", "d", "e"]'],
            "temperature": [STRING, "2.1", "true"],
            "top_p": [STRING, "0"],
            "seed": [STRING, "1.5"],
            "top_k": [STRING, "-2"],
            "min_tokens": [STRING, "-1", "13"],
            "stop_token_ids": [STRING, "[354]"],
            "stream": [STRING, "1"],
            "user": ["1"],
            "logit_bias": ['{"354": 1}', LIST],
            "min_p": [STRING, "2"],
            "repetition_penalty": [STRING, "0"],
            "presence_penalty": [STRING, "2.5"],
        },
        COMPLETIONS,
    ),
    *fields(
        {
            name: ["null", STRING]
            for name in ("messages", "top_logprobs", "max_completion_tokens", "tools", "metadata", "store", "prompts")
        },
        COMPLETIONS,
    ),
]
COMBINATIONS: Cases = [
    (_body(best_of=1, n=2), "best_of"),
    (_body(best_of=3, n=2), "best_of"),
    (_body(logprobs=1, max_tokens=0), "max_tokens"),
    (_body(echo=False, logprobs=1, max_tokens=0), "max_tokens"),
    (_body(echo=True, max_tokens=0), "max_tokens"),
    (_body(echo=True, logprobs=1, max_tokens=0, min_tokens=1), "min_tokens"),
    (_body(echo=True, logprobs=1, max_tokens=0, prompt=[5] * 513), "prompt"),
    (_body(stream_options={"include_usage": True}), "stream_options"),
    (_body(model="tiny:base", preference=[1, 0, 0]), "preference"),
    (_body(model=SECRET), "model"),
    (with_field("prompt", f'"a", "prompt": {STRING}', COMPLETIONS), "prompt"),
]

_COUNTERPARTS = (
    "formats",
    "nan",
    "infinities",
    "beyond floats",
    "negative",
    "too large",
    "all zero",
    "unknown dimensions",
    "wrong lengths",
    "preference types",
    "nested",
    "depths",
    "surrogates",
    "no JSON",
    "unknown fields",
    "unsupported",
    "10 MB",
)

COMPLETION_CLASSES: dict[str, Cases] = {
    "prompt types": PROMPT_TYPES,
    "prompt ranges": PROMPT_RANGES,
    "fields": FIELDS,
    "combinations": COMBINATIONS,
    **{name: _counterparts(CHAT_CLASSES[name]) for name in _COUNTERPARTS},
}
