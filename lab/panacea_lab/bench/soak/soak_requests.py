"""The requests of a soak: all kinds, drawn at random, the same for the same seed."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from panacea_lab.bench.measurement import BenchError
from panacea_lab.bench.soak.http_caller import Caller

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

DISCONNECTS, BAD = 0.05, 0.01
"""Shares of all requests."""

SoakKind = Literal["whole", "stream", "disconnect", "bad"]


@dataclass(frozen=True)
class SoakRequest:
    """One request, and how the client reads its answer."""

    kind: SoakKind
    path: str
    body: bytes
    choices: int = 1
    """Number of answers that it must get."""
    streams: bool = False
    leaves_after: int = 0
    """Events, or hundredths of a second where it does not stream, before it disconnects."""


@dataclass(frozen=True)
class SoakVocabulary:
    """The models, dimensions and prompts of one server, to make requests from."""

    models: tuple[str, ...]
    """All ids; the first is the model itself."""
    dimensions: tuple[str, ...]
    prompts: tuple[str, ...]
    prompt_chars: int
    """Most characters of a prompt: it has to fit into the context."""
    answer_tokens: int
    """Most tokens of an answer."""

    @classmethod
    def of(cls, caller: Caller, prompt_chars: int, answer_tokens: int) -> "SoakVocabulary":
        """Reads the server's models and preferences."""
        replies = [caller.ask("GET", path) for path in ("/v1/models", "/v1/preferences")]
        for reply in replies:
            if reply.status not in (200, 404):
                raise BenchError(f"the server answers {reply.status} to what a soak first asks: {reply.body[:200]!r}")
        models, preferences = (reply.json() for reply in replies)
        return cls(
            tuple(card["id"] for card in models["data"]),
            tuple(each["name"] for each in preferences.get("dimensions", ())),
            tuple(preferences.get("example_prompts", ())) or ("How do I unblock a sink?",),
            prompt_chars,
            answer_tokens,
        )


@dataclass
class SoakRequests:
    """An endless stream of requests for one client."""

    vocabulary: SoakVocabulary
    seed: str
    _random: random.Random = field(init=False)
    _systems: list[str] = field(init=False)

    def __post_init__(self) -> None:
        # System prompts are shared by all clients, so that their requests find each other's in the prefix cache.
        shared = random.Random(0)
        longest = self.vocabulary.prompt_chars // 2
        self._systems = [self._text(shared, longest * share // 4) for share in (1, 2, 3, 4)]
        self._random = random.Random(self.seed)

    def next(self) -> SoakRequest:
        """The next request."""
        drawn = self._random.random()
        if drawn < BAD:
            return self._bad()
        disconnects = drawn < BAD + DISCONNECTS
        path = self._random.choice((CHAT, CHAT, COMPLETIONS))
        body = self._sampling() | (self._chat() if path == CHAT else self._completion())
        # Most disconnects are in the middle of a stream.
        streams = self._random.random() < (0.8 if disconnects else 0.5)
        if streams:
            body["stream"] = True
            if self._random.random() < 0.5:
                body["stream_options"] = {"include_usage": True}
        prompt = body.get("prompt", "")
        prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
        kind: SoakKind = "disconnect" if disconnects else "stream" if streams else "whole"
        leaves_after = self._random.randint(1, 12) if disconnects else 0
        return SoakRequest(kind, path, json.dumps(body).encode(), body.get("n", 1) * prompts, streams, leaves_after)

    def _maybe(self, share: float, **fields: Any) -> dict[str, Any]:
        return fields if self._random.random() < share else {}

    def _sampling(self) -> dict[str, Any]:
        draw = self._random
        body: dict[str, Any] = {"max_tokens": min(self.vocabulary.answer_tokens, round(2 ** draw.uniform(0, 8)))}
        body |= self._maybe(0.8, temperature=round(draw.uniform(0, 1.5), 2))
        body |= self._maybe(0.3, n=draw.choice((1, 2, 2, 3, 4)))
        body |= self._maybe(0.5, seed=draw.randint(-(2**63), 2**63 - 1))
        body |= self._maybe(0.2, top_p=round(draw.uniform(0.1, 1), 2))
        body |= self._maybe(0.1, top_k=draw.randint(1, 50))
        body |= self._maybe(0.1, min_p=round(draw.uniform(0, 0.2), 3))
        body |= self._maybe(0.1, frequency_penalty=round(draw.uniform(-1, 1), 2))
        body |= self._maybe(0.1, presence_penalty=round(draw.uniform(-1, 1), 2))
        body |= self._maybe(0.1, repetition_penalty=round(draw.uniform(0.8, 1.3), 2))
        body |= self._maybe(0.1, logit_bias={str(draw.randint(5, 300)): draw.randint(-100, 5)})
        body |= self._maybe(0.2, stop=draw.sample(["\n", ". ", "the", "you", "!"], draw.randint(1, 3)))
        body |= self._maybe(0.1, ignore_eos=True)
        body |= self._maybe(0.1, cache_salt=f"tenant {draw.randint(0, 3)}")
        body |= self._maybe(0.7, model=draw.choice(self.vocabulary.models))
        # The base has no preferences.
        if self.vocabulary.dimensions and not body.get("model", "").endswith(":base"):
            body |= self._maybe(0.8, preference=self._preference())
        return body

    def _preference(self) -> Any:
        if self._random.random() < 0.5:  # a favourite of many clients, so that they find each other's prefixes
            favourite = self._random.randrange(len(self.vocabulary.dimensions))
            return {self.vocabulary.dimensions[favourite]: 1}
        weights = [round(self._random.expovariate(1) + 0.001, 3) for _ in self.vocabulary.dimensions]
        if self._random.random() < 0.3:
            return weights
        named = dict(zip(self.vocabulary.dimensions, weights, strict=True))
        return dict(self._random.sample(sorted(named.items()), self._random.randint(1, len(named))))

    def _chat(self) -> dict[str, Any]:
        messages: list[dict[str, str]] = []
        if self._random.random() < 0.6:
            messages.append({"role": "system", "content": self._random.choice(self._systems)})
        turns = self._random.choice((1, 1, 1, 3, 5))
        for turn in range(turns):
            role = "user" if turn % 2 == 0 else "assistant"
            messages.append({"role": role, "content": self._words(self.vocabulary.prompt_chars // (2 * turns))})
        body: dict[str, Any] = {"messages": messages}
        body |= self._maybe(0.1, response_format=self._random.choice(_FORMATS))
        return body | self._maybe(0.15, logprobs=True, top_logprobs=self._random.randint(0, 5))

    def _completion(self) -> dict[str, Any]:
        most = self.vocabulary.prompt_chars
        ids = [self._random.randint(5, 300) for _ in range(self._random.randint(1, most // 4))]
        begun = self._random.choice(self._systems) + " " + self._words(most // 4)
        several = [self._words(most // 4) for _ in range(self._random.randint(1, 3))]
        body: dict[str, Any] = {"prompt": self._random.choice((begun, begun, several, ids, [ids[:9], ids[:20]]))}
        scores = {"echo": True, "logprobs": self._random.randint(0, 5)}
        if self._random.random() < 0.1:
            return body | scores | {"max_tokens": 0}
        return body | self._maybe(0.1, **scores)

    def _words(self, most: int) -> str:
        return self._text(self._random, self._random.randint(1, max(1, most)))

    def _text(self, draw: random.Random, length: int) -> str:
        """As many characters of things that people ask, beginning anywhere."""
        text = ""
        while len(text) <= length:
            text += draw.choice(self.vocabulary.prompts) + " "
        return text[:length]

    def _bad(self) -> SoakRequest:
        path, body = self._random.choice(_BAD)
        return SoakRequest("bad", path, body)


_STEPS = {
    "type": "object",
    "properties": {"steps": {"type": "array", "items": {"type": "string"}}},
    "required": ["steps"],
}
_FORMATS: Sequence[dict[str, Any]] = (
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "steps", "schema": _STEPS}},
)

LONG = {"messages": [{"role": "user", "content": "Far too long. " * 2000}], "max_tokens": 10**9}
"""A prompt that the server encodes in a thread, for an answer that no context has room for."""


def _bad_bodies() -> Sequence[tuple[str, bytes]]:
    question: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
    bad: list[dict[str, Any]] = [
        {},
        {"messages": []},
        question | {"preference": {"no such dimension": 1}},
        question | {"preference": [-1.0]},
        question | {"temperature": 5},
        question | {"max_tokens": 10**9},
        question | {"no_such_field": 1},
        question | {"model": "no such model"},
        LONG,
    ]
    bodies = [(CHAT, json.dumps(each).encode()) for each in bad]
    bodies += [(CHAT, b'{"messages": ['), (CHAT, b"\xff\x00"), (COMPLETIONS, b'{"prompt": ""'), (COMPLETIONS, b"[]")]
    bodies += [
        (COMPLETIONS, b'{"prompt": [99999999]}'),
        (COMPLETIONS, b'{"prompt": "a", "n": 0}'),
        ("/v1/nothing", b""),
    ]
    return bodies


_BAD = _bad_bodies()
