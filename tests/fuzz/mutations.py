"""Hostile requests: valid ones with something wrong, the same for the same seed.

Most mutations know JSON and leave it valid, so that they get to what lies behind the parser; the others know bytes; a
tenth of the requests is wrong in how HTTP carries them.
"""

import json
import random
from collections.abc import Iterator

from tests.fuzz.body_mutations import BYTE_MUTATIONS, JSON_MUTATIONS
from tests.fuzz.http_mutations import HTTP_MUTATIONS, Hostile, plain
from tests.fuzz.values import VALID


def hostile(seed: int, count: int) -> Iterator[Hostile]:
    """`count` requests."""
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
