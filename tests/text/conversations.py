"""Thirteen conversations without control tokens, and five that spell them, for comparisons with transformers."""

from typing import Any

from panacea.text.chat_template import ChatMessage

ANSWER = "<think>\nTwo and two.\n</think>\n\n4"


def _of(*turns: tuple[str, str | list[str]]) -> list[ChatMessage]:
    return [
        ChatMessage(role, text) if isinstance(text, str) else ChatMessage(role, "".join(text), tuple(text))  # type: ignore[arg-type]
        for role, text in turns
    ]


HARMLESS: dict[str, list[ChatMessage]] = {
    "one question": _of(("user", "How do I boil an egg?")),
    "instructions": _of(("system", "Be brief."), ("user", "How do I boil an egg?")),
    "two turns": _of(("user", "What is 2 + 2?"), ("assistant", "4"), ("user", "And 3 + 3?")),
    "thoughts": _of(("user", "What is 2 + 2?"), ("assistant", ANSWER), ("user", "And 3 + 3?")),
    "thoughts at the end": _of(("system", "Count."), ("user", "What is 2 + 2?"), ("assistant", ANSWER)),
    "half a thought": _of(("user", "Go."), ("assistant", "no start</think>\n\n4\n"), ("user", "<think>And?")),
    "spaces": _of(("system", "  Be brief.\n"), ("user", " s "), ("assistant", "\n\n t\n"), ("user", "\tu \n")),
    "nearly nothing": _of(("system", ""), ("user", "s"), ("assistant", ""), ("user", "<")),
    "other letters": _of(("user", "Grüße, 世界! 🙂\r\n\u00a0."), ("assistant", "\u2028İ ß"), ("user", "e\u0301\ufb01")),
    "code": _of(
        ("user", '```json\n{"a": ["<b>", \'c\', "\\n"], "%s": {}}\n``` {{ x }} {% y %}'),
        ("assistant", "$1\\1"),
    ),
    "parts": _of(
        ("user", ["What is this?", " A knife. ", "\nOr two"]),
        ("assistant", ["1", " or ", "2"]),
        ("user", ["?"]),
    ),
    "instructions in parts": _of(
        ("system", ["Be brief. ", "Be kind."]),
        ("user", "Why?"),
        ("assistant", "So."),
        ("user", "Ah"),
    ),
    "many turns": _of(
        ("system", "Be brief."),
        *(turn for n in range(12) for turn in (("user", f"Say {n}."), ("assistant", f"<think>{n}</think>{n}\n"))),
        ("user", "Thanks."),
    ),
}


def hostile(names: list[str]) -> dict[str, tuple[list[ChatMessage], list[ChatMessage]]]:
    """Conversations that spell the control tokens `names`, each with a harmless one of the same shape."""
    first, last = names[0], names[-1]
    every = " ".join(names)
    half = len(first) // 2
    texts = {
        "alone": (first, "word"),
        "all in a sentence": (f"I say {every} to you", "I say word to you"),
        "back to back": (first + last + first, "wordword"),
        "among spaces and case": (f" \n{first.upper()} {first.lower()}\n{last} ", " \nword word\nword "),
        "in halves": (f"{first[half:]} and {last} {first[:half]}", "a word and word so"),
    }
    return {
        name: (
            _of(("system", f"So: {spelled}"), ("user", spelled), ("assistant", spelled), ("user", [spelled, spelled])),
            _of(("system", f"So: {plain}"), ("user", plain), ("assistant", plain), ("user", [plain, plain])),
        )
        for name, (spelled, plain) in texts.items()
    }


def as_transformers_takes_them(messages: list[ChatMessage], *, parts: bool) -> list[dict[str, Any]]:
    """The messages for `apply_chat_template`. With `parts` all contents are lists of parts."""
    return [
        {
            "role": message.role,
            "content": [{"type": "text", "text": text} for text in message.parts or (message.content,)]
            if parts or message.parts
            else message.content,
        }
        for message in messages
    ]
