"""Requests and answers as tests write and read them."""

import json
from typing import Any

import httpx2

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

QUESTION = "How do I sharpen a knife?"
PROMPTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": QUESTION}]},
    COMPLETIONS: {"prompt": QUESTION},
}


def body(path: str = CHAT, **fields: Any) -> dict[str, Any]:
    """A small good request, with these fields."""
    return {**PROMPTS[path], "max_tokens": 12, "seed": 1} | fields


def ask(client: httpx2.Client, path: str = CHAT, **fields: Any) -> dict[str, Any]:
    """The answer to a good request."""
    response = client.post(path, json=body(path, **fields))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def events(client: httpx2.Client, path: str = CHAT, **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a good request's stream, which must end as streams end."""
    with client.stream("POST", path, json=body(path, stream=True, **fields)) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        blocks = response.read().decode().split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


def contents(answer: dict[str, Any]) -> list[str]:
    """All choices' texts."""
    return [choice["message"]["content"] if "message" in choice else choice["text"] for choice in answer["choices"]]


def streamed(chunks: list[dict[str, Any]]) -> dict[int, str]:
    """All choices' texts from a stream's deltas."""
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            added = choice["delta"].get("content", "") if "delta" in choice else choice["text"]
            texts[choice["index"]] = texts.get(choice["index"], "") + added
    return texts


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The error in an answer that must be a 4xx or 5xx in OpenAI's shape, and say nothing it should not."""
    assert 400 <= response.status_code < 600, response.text[:200]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    content = response.json()
    assert set(content) == {"error"}
    error: dict[str, Any] = content["error"]
    assert set(error) == {"message", "type", "param", "code"}
    kind = "invalid_request_error" if response.status_code < 500 else "server_error"
    assert error["type"] == ("rate_limit_error" if response.status_code == 429 else kind)
    assert error["message"].isascii()
    assert error["message"].isprintable()
    assert len(error["message"]) < 300
    assert error["param"] is None or 0 < len(error["param"]) <= 64
    return error
