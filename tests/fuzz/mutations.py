"""Hostile requests: valid ones with something wrong, the same for the same seed.

Most mutations know JSON and leave it valid, so that they get to what lies behind the parser; the others know bytes; a
tenth of the requests is wrong in how HTTP carries them.
"""

import json
import random
from collections.abc import Iterator, Sequence

from tests.fuzz.body_mutations import BYTE_MUTATIONS, JSON_MUTATIONS
from tests.fuzz.http_mutations import HTTP_MUTATIONS, Hostile, plain, with_key
from tests.fuzz.values import VALID

WRONG_KEYS = ("", "a-key-that-nobody-has-and-that-is-long", "\u00ff" * 40, "a b", "Bearer")


def hostile(seed: int, count: int, keys: Sequence[str] = ()) -> Iterator[Hostile]:
    """`count` requests. Each has one of `keys`, or now and then a wrong one."""
    for request in _keyless(seed, count):
        draw = random.Random(f"{seed} {request.number} key")
        if keys and draw.random() < 0.03:
            yield with_key(request, draw.choice(WRONG_KEYS))
        else:
            yield with_key(request, draw.choice(keys)) if keys else request


def _keyless(seed: int, count: int) -> Iterator[Hostile]:
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        path, valid = draw.choice(VALID)
        content = json.loads(json.dumps(valid))
        if draw.random() < 0.6:
            kind = draw.choice(list(JSON_MUTATIONS))
            body = JSON_MUTATIONS[kind](draw, content)
        else:
            kind = draw.choice(list(BYTE_MUTATIONS))
            body = BYTE_MUTATIONS[kind](draw, json.dumps(content).encode())
        if draw.random() < 0.1:
            kind = draw.choice(list(HTTP_MUTATIONS))
            yield HTTP_MUTATIONS[kind](draw, number, path, body)
        else:
            yield plain(number, kind, path, body)
