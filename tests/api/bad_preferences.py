"""Preferences that are none, by what is wrong with them."""

import json

from tests.api.cases import LIST, OBJECT, SECRET, STRING, Cases, preferences

NEGATIVE: Cases = preferences(
    "[-1, 1, 1]",
    "[1, -1, 1]",
    "[1, 1, -1]",
    "[-1, -1, -1]",
    "[-5e-324, 1, 1]",
    "[-1e6, 1, 1]",
    '{"helpful": -1}',
    '{"helpful": -0.001, "concise": 1}',
    '{"helpful": 2, "concise": -1}',
    '{"harmless": -1e-9, "helpful": 1}',
)
TOO_LARGE: Cases = preferences(
    "[1000000.1, 1, 1]", "[1e7, 1, 1]", '{"helpful": 1e300}', '{"helpful": 1000001}', "[1.7976931348623157e308, 0, 0]"
)
ALL_ZERO: Cases = preferences(
    "[0, 0, 0]",
    "[0.0, 0.0, 0.0]",
    "[-0.0, 0, 0]",
    "[-0.0, -0.0, -0.0]",
    "[0e10, 0, 0]",
    "[1e-400, 0, 0]",
    "{}",
    '{"helpful": 0}',
    '{"helpful": 0, "harmless": 0, "concise": 0}',
    '{"concise": -0.0}',
    '{"helpful": 1e-500}',
)
UNKNOWN_DIMENSIONS: Cases = preferences(
    *(
        json.dumps({name: 1})
        for name in (
            "kind",
            "Helpful",
            "helpful ",
            " helpful",
            "helpful\u0000",
            "",
            "0",
            "default",
            "h\u0435lpful",
            "\u202ehelpful",
            "\U0001f600" * 100,
            "x" * 10_000,
            "__class__",
            "constructor",
        )
    ),
    '{"helpful": 1, "kind": 0}',
    '{"helpful": 1, "kind": null}',
)
WRONG_LENGTHS: Cases = preferences(
    "[]",
    "[1]",
    "[1, 1]",
    "[1, 1, 1, 1]",
    "[0, 0, 0, 1]",
    json.dumps([1] * 10),
    json.dumps([1] * 1000),
    json.dumps([0.1] * 100_000),
    "[[1, 1, 1]]",
    "[null]",
    "[{}]",
)
PREFERENCE_TYPES: Cases = preferences(
    STRING,
    LIST,
    OBJECT,
    "true",
    "false",
    "0",
    "1",
    "0.5",
    '"helpful"',
    '"[1, 0, 0]"',
    '""',
    '["1", "0", "0"]',
    "[true, false, false]",
    "[true, 1, 1]",
    "[null, 1, 1]",
    "[null, null, null]",
    '{"helpful": "1"}',
    '{"helpful": true}',
    '{"helpful": false, "concise": 1}',
    '{"helpful": null}',
    f'{{"helpful": "{SECRET}"}}',
)
NESTED: Cases = preferences(
    "[[1], [1], [1]]",
    "[[1, 1, 1], 1, 1]",
    "[{}, {}, {}]",
    '[{"helpful": 1}, 1, 1]',
    '{"helpful": {"helpful": 1}}',
    '{"helpful": [1]}',
    '{"helpful": []}',
    '{"preference": {"helpful": 1}}',
    '{"weights": [1, 0, 0]}',
    "[" * 150 + "]" * 150,
    '{"helpful":' * 100 + "1" + "}" * 100,
    f'{{"helpful": ["{SECRET}"]}}',
)
