"""The OpenAPI document says everything, its examples work as they stand, and `/docs` shows it without any help."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx2
import pytest

from panacea.api.information.docs_page import docs_page
from tests.api.chatting import error_of
from tests.api.serving import NAME


def document(client: httpx2.Client) -> dict[str, Any]:
    response = client.get("/openapi.json")
    assert response.status_code == 200
    content: dict[str, Any] = response.json()
    return content


def operations(content: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in content["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_the_documentation_knows_all_bodies(client: httpx2.Client) -> None:
    schema = document(client)
    text = json.dumps(schema)
    referenced = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referenced <= set(schema["components"]["schemas"])
    assert {"ChatRequest", "ChatCompletion", "ChatCompletionChunk", "Evaluation", "ErrorResponse"} <= referenced
    assert "#/$defs/" not in text
    fields = schema["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"messages", "preference", "top_k", "stop"} <= set(fields)
    assert {"CompletionRequest", "TextCompletion"} <= referenced
    shared = set(schema["components"]["schemas"]["CompletionRequest"]["properties"]) & set(fields)
    assert {"model", "preference", "n", "stop", "stream_options"} <= shared
    limits = {
        name: {key: value for key, value in field["anyOf"][0].items() if "imum" in key}
        for name, field in fields.items()
        if name in ("n", "temperature", "top_p", "seed", "min_tokens", "top_logprobs")
    }
    assert limits == {
        "n": {"minimum": 1, "maximum": 16},
        "temperature": {"minimum": 0, "maximum": 2},
        "top_p": {"exclusiveMinimum": 0, "maximum": 1},
        "seed": {"minimum": -(2**63), "exclusiveMaximum": 2**63},
        "min_tokens": {"minimum": 0},
        "top_logprobs": {"minimum": 0, "maximum": 20},
    }


def undescribed(content: dict[str, Any]) -> list[str]:
    """Everything without words of its own."""
    missing: list[str] = []
    for name, schema in content["components"]["schemas"].items():
        missing += [name] if not schema.get("description") else []
        fields = schema.get("properties", {})
        missing += [f"{name}.{field}" for field, described in fields.items() if not described.get("description")]
    for method, path, operation in operations(content):
        where = f"{method} {path}"
        missing += [f"{where}: {key}" for key in ("summary", "description") if not operation.get(key)]
        missing += [f"{where}: {each['name']}" for each in operation.get("parameters", []) if "description" not in each]
        for status, answer in operation["responses"].items():
            if answer["description"] in ("", "Successful Response") or "content" not in answer:
                missing.append(f"{where}: {status}")
            if status != "200" and "example" not in answer["content"]["application/json"]:
                missing.append(f"{where}: an example of {status}")
        if "requestBody" in operation and not operation["requestBody"]["content"]["application/json"].get("examples"):
            missing.append(f"{where}: an example")
    return missing


def test_every_route_field_answer_and_body_is_described(client: httpx2.Client) -> None:
    assert undescribed(document(client)) == []


def test_what_lacks_words_is_found(client: httpx2.Client) -> None:
    content = document(client)
    chat = content["paths"]["/v1/chat/completions"]["post"]
    del content["components"]["schemas"]["Usage"]["properties"]["total_tokens"]["description"]
    del chat["requestBody"]["content"]["application/json"]["examples"]
    del chat["responses"]["400"]["content"]["application/json"]["example"]
    chat["summary"] = ""
    assert undescribed(content) == [
        "Usage.total_tokens",
        "post /v1/chat/completions: summary",
        "post /v1/chat/completions: an example of 400",
        "post /v1/chat/completions: an example",
    ]


def test_every_example_is_answered(client: httpx2.Client) -> None:
    answered = 0
    for method, path, operation in operations(document(client)):
        examples = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
        for example in examples.values():
            response = client.request(method, path, json=example["value"])
            assert response.status_code == 200, (path, example, response.text)
            assert "error" not in response.text
            answered += 1
    assert answered >= 10


def test_every_documented_error_has_the_error_shape_and_its_status_occurs(client: httpx2.Client) -> None:
    for _, _, operation in operations(document(client)):
        for status, answer in operation["responses"].items():
            if status != "200":
                example = answer["content"]["application/json"]["example"]
                assert set(example) == {"error"}
                assert set(example["error"]) == {"message", "type", "param", "code"}
                assert (example["error"]["type"] == "server_error") == (int(status) >= 500)
    missing = client.get("/v1/models/nobody")
    shown = document(client)["paths"]["/v1/models/{model}"]["get"]["responses"]["404"]
    assert error_of(missing) == shown["content"]["application/json"]["example"]["error"]


class _Page(HTMLParser):
    """What a browser would load or follow."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style"
            if name == "href":
                self.links.add(value or "")
            elif name == "id":
                self.ids.append(value or "")
            elif name == "src":
                self.loaded.append(value or "")


def test_the_page_shows_all_of_it_and_loads_nothing(client: httpx2.Client) -> None:
    response = client.get("/docs")
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = _Page(response.text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "form", "svg"}
    assert page.loaded == []
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert {link for link in page.links if not link.startswith("#")} == {"/", "/openapi.json"}
    content = document(client)
    for _, path, operation in operations(content):
        assert path in response.text
        assert operation["summary"] in response.text
    for schema in content["components"]["schemas"].values():
        for field in schema.get("properties", {}):
            assert f"<code>{field}</code>" in response.text


def test_what_stands_in_a_document_never_becomes_markup(client: httpx2.Client) -> None:
    """A model's name, its dimensions and its example prompts come from files that others wrote."""
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>'"
    text = json.dumps(document(client)).replace(f'"{NAME}"', json.dumps(evil)).replace("sharpen a knife", evil)
    page = _Page(docs_page(json.loads(text)))
    assert not page.tags & {"script", "img"}


@pytest.mark.parametrize("name", ["A question with a preference", "JSON that follows a schema"])
def test_examples_are_shown_as_commands_to_copy(client: httpx2.Client, name: str) -> None:
    shown = client.get("/docs").text
    assert name in shown
    assert re.search(r"curl http://localhost:8000/v1/chat/completions -H", shown)
