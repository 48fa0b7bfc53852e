"""Fragments of links that mean nothing: each with the names that the page has to say it ignored."""

BAD_VALUES = (
    "",
    "+",
    "x",
    "-1",
    "-0.5",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "9" * 400,
    "0x",
    "1,5",
    "1_000",
    "1n",
    "null",
    "undefined",
    "true",
    "[]",
    "{}",
    "%00",
    "%",
    "%E0%A4%A",
    "%FF%FE",
    "%F0%9F%94%AA",
    "__proto__",
    "constructor",
    "toString",
    "<img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "'; DROP TABLE links; --",
)
"""None of them is a value of any part but the two that are text."""

UNKNOWN_NAMES = (
    "key",
    "api_key",
    "answers",
    "Q",
    "VIEW",
    "view ",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "toString",
    "prototype",
    "🔪",
    "%00",
)

_NOT_WHOLE = ("0.5", "1.5", "1e-3")
_OUT_OF_RANGE = {
    "temperature": ("2.0001", "3", "-1e-9"),
    "top_p": ("0", "1.01", "0.001"),
    "max_tokens": ("0", "1000001", "1.5"),
    "seed": ("9007199254740993", "-1", "auto", *_NOT_WHOLE),
    "steer": ("0", "7", "2e9", "auto", *_NOT_WHOLE),
    "pin": ("0", "7", "2e9", "auto", *_NOT_WHOLE),
    "view": ("Compare", "comparex", "compare,range", "toString", "0"),
    "range": (
        "0.1",
        "0.1.1",
        "0.1.7",
        "0.1.2.3",
        "0.0.3",
        "9.0.3",
        "0.9.3",
        "-1.0.3",
        "0.-1.5",
        "triangle",
        "triangle.1",
        "triangle.7",
        "triangle.2.3",
        "circle.4",
        "0..3",
        "a.b.c",
    ),
}


def _bad_preferences(dimensions: int) -> list[str]:
    """Wrong in number, in sum or in sign; a whole one is all of the first dimension."""
    ones = [["1", *["0"] * (size - 1)] for size in range(1, 8) if size != dimensions]
    bad = [",".join(each) for each in ones]
    if dimensions > 0:
        rest = ["0"] * (dimensions - 1)
        bad += [
            ",".join([first, *rest]) for first in ("0", "0.9", "1.1", "2", "-1", "NaN", "Infinity", "1e400", "", "x")
        ]
        bad += [",".join(["1", *rest, ""]), ",".join(["", "1", *rest])]
    if dimensions > 1:
        more = ["0"] * (dimensions - 2)
        bad += [",".join([*pair, *more]) for pair in (("2", "-1"), ("Infinity", "-Infinity"), ("0.3333", "0.3333"))]
    return bad


def hostile_links(dimensions: int) -> list[tuple[str, set[str]]]:
    """Links of which nothing has a meaning in a space of so many dimensions, with the names of their parts."""
    preferences = _bad_preferences(dimensions)
    good = ",".join(["1", *["0"] * (dimensions - 1)]) if dimensions else "base"
    columns = ["", ";", "base", ";".join([good] * 7), f"{good};", f";{good}", ";" * 1000, f"{good};{good};x"]
    columns += [f"{good};{bad}" for bad in preferences]
    bad_values = {name: [*BAD_VALUES, *values] for name, values in _OUT_OF_RANGE.items()}
    bad_values |= {"chat": [*BAD_VALUES, *preferences], "columns": [*BAD_VALUES, *columns]}
    links = [(f"#{name}={value}", {name}) for name, values in bad_values.items() for value in values]
    links += [(f"#{name}=1", {name if name != "%00" else "\0"}) for name in UNKNOWN_NAMES]
    links += [(name, {name}) for name in ("a", "__proto__")]
    links += [
        ("#" + "&".join(f"{name}={values[0]}" for name, values in bad_values.items()), set(bad_values)),
        ("#view=chat&view=compare", {"view"}),
        ("#q=one&q=two", {"q"}),
        ("#seed=1&seed=1", {"seed"}),
        (f"#columns={good};{good}&columns={good};{good}", {"columns"}),
        ("#a=1&a=2&a=3", {"a"}),
        ("#" + "a&" * 1000, {"a"}),
        ("#" + "x" * 1_000_000, {"x" * 1_000_000}),
        ("#seed=" + "9" * 1_000_000, {"seed"}),
        ("#columns=" + "0," * 500_000, {"columns"}),
    ]
    return links
