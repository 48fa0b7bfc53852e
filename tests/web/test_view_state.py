"""What a link carries, and what a hostile one cannot do."""

import random
from typing import Any

import pytest

from tests.web.hostile_links import BAD_VALUES, hostile_links
from tests.web.modules import CallModule, TimeModule

NAMES = ("helpful", "harmless", "concise", "kind & true", "a,b;c=d")
VIEWS = ("compare", "range", "chat", "measured")
SETTINGS = {"system", "temperature", "top_p", "max_tokens", "seed"}
KEYS = {"view", "q", "columns", "steer", "pin", "chat", "range"} | SETTINGS
DIMENSIONS = [0, 1, 2, 3, 5]
TEXTS = (
    "",
    " ",
    "How do I sharpen a knife?",
    "two\nlines\r\nand\ttabs",
    "a=b&c=d#e+f%20g%",
    "\"double\" 'single' `back` \\ slash",
    "naïve 北京 🔪👩‍👩‍👧 e\u0301 \u202eabc\u202c \u2028",
    "?q=x&view=chat",
    "auto",
    "__proto__",
    "<img src=x onerror=alert(1)>",
    "\x00\x07 \x7f",
)

# A state as plain values: columns are preferences, and the pinned one is a position.
State = dict[str, Any]

STATE_OF = """
  const plain = (state) => ({
    ...state,
    columns: state.columns.map(({ preference }) => preference),
    pinned: state.pinned === null ? null : state.columns.findIndex(({ id }) => id === state.pinned),
    ids: new Set(state.columns.map(({ id }) => id)).size,
  });
  const real = (state) => {
    const columns = state.columns.map(column);
    return { ...state, columns, pinned: state.pinned === null ? null : columns[state.pinned].id };
  };
"""


def space_of(dimensions: int) -> dict[str, Any]:
    vertices = [[1000 * (row == column) for column in range(dimensions)] for row in range(dimensions)]
    start = [1000 - 100 * (dimensions - 1), *[100] * (dimensions - 1)] if dimensions else []
    return {
        "model": "tiny",
        "names": NAMES[:dimensions],
        "descriptions": ["what it does"] * dimensions,
        "start": start,
        "presets": [{"name": "brief", "preference": vertex} for vertex in vertices[-1:]],
        "prompts": ["How do I sharpen a knife?", "What's in the attic?"],
    }


def random_state(generator: random.Random, dimensions: int) -> State:
    """Any state that the page can be in; without dimensions there is only the base."""

    def preference() -> list[int] | None:
        if dimensions == 0 or generator.random() < 0.2:
            return None
        cuts = sorted(generator.choice((0, 1000, generator.randint(0, 1000))) for _ in range(dimensions - 1))
        return [end - begin for begin, end in zip([0, *cuts], [*cuts, 1000], strict=True)]

    def text() -> str:
        return generator.choice(TEXTS) + generator.choice(("", generator.choice(TEXTS)))

    count = generator.randint(2, 6)
    points = generator.randint(2, 6)
    ends = generator.sample(range(dimensions), 2) if dimensions > 1 else [0, dimensions - 1]
    an_edge = {"from": ends[0], "to": ends[1], "count": points if dimensions > 1 else 5}
    over_triangle = dimensions == 3 and generator.random() < 0.5
    return {
        "view": generator.choice(VIEWS if dimensions > 1 else ("compare", "chat")),
        "prompt": text(),
        "columns": [preference() for _ in range(count)],
        "chosen": generator.randrange(count),
        "pinned": generator.choice((None, generator.randrange(count))),
        "chat": preference(),
        "range": {"over": "triangle", "count": points} if over_triangle else an_edge,
        "settings": {
            "system": text(),
            "temperature": generator.choice((None, 0, 0.7, 2, generator.random() * 2, 1e-7)),
            "topP": generator.choice((None, 1, 0.9, generator.uniform(0.01, 1))),
            "maxTokens": generator.choice((None, 1, 400, 1_000_000, generator.randint(1, 5000))),
            "seed": generator.choice((None, 0, 2**53 - 1, generator.randint(0, 10**9))),
        },
    }


def assert_is_valid(state: State, dimensions: int) -> None:
    """As `ViewState` promises it."""

    def is_preference(each: Any) -> bool:
        return each is None or (
            len(each) == dimensions
            and all(isinstance(weight, int) and weight >= 0 for weight in each)
            and sum(each) == (1000 if dimensions else 0)
        )

    columns, settings, extent = state["columns"], state["settings"], state["range"]
    assert 2 <= len(columns) <= 6
    assert state["ids"] == len(columns)
    assert all(is_preference(each) for each in [*columns, state["chat"]])
    assert state["view"] in (VIEWS if dimensions > 1 else ("compare", "chat"))
    assert 0 <= state["chosen"] < len(columns)
    assert state["pinned"] is None or 0 <= state["pinned"] < len(columns)
    if dimensions > 1:
        assert 2 <= extent["count"] <= 6
        if "over" in extent:
            assert dimensions == 3
        else:
            assert extent["from"] != extent["to"]
            assert {extent["from"], extent["to"]} <= set(range(dimensions))
    assert isinstance(state["prompt"], str)
    assert isinstance(settings["system"], str)
    for name, least, most in (("temperature", 0, 2), ("topP", 0.01, 1), ("maxTokens", 1, 10**6), ("seed", 0, 2**53)):
        assert settings[name] is None or least <= settings[name] <= most
    assert all(settings[name] is None or isinstance(settings[name], int) for name in ("maxTokens", "seed"))


def opened(modules: CallModule, dimensions: int, links: list[str]) -> list[tuple[State, list[str]]]:
    """The states that links lead to, each with the names of what was ignored."""
    found: list[tuple[State, list[str]]] = modules(
        "view_state",
        f"""({{ fromFragment, column }}, [space, links]) => {{
          {STATE_OF}
          return links.map((link) => {{
            const {{ state, ignored }} = fromFragment(link, space);
            return [plain(state), ignored];
          }});
        }}""",
        [space_of(dimensions), links],
    )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_a_link_carries_every_state_whole(modules: CallModule, dimensions: int) -> None:
    generator = random.Random(dimensions)
    states = [random_state(generator, dimensions) for _ in range(300)]
    found = modules(
        "view_state",
        f"""({{ toFragment, fromFragment, column }}, [space, states]) => {{
          {STATE_OF}
          return states.map((state) => {{
            const fragment = toFragment(real(state), space);
            const address = new URL("#" + fragment, location.href).hash; // as the browser keeps it
            const {{ state: back, ignored }} = fromFragment(address, space);
            return {{ fragment, ignored, back: plain(back), names: [...new URLSearchParams(fragment).keys()] }};
          }});
        }}""",
        [space_of(dimensions), states],
    )
    written: set[str] = set()
    for state, each in zip(states, found, strict=True):
        assert each["ignored"] == []
        assert_is_valid(each["back"], dimensions)
        back = {name: value for name, value in each["back"].items() if name != "ids"}
        if dimensions == 0:  # the model as it is and its base are the same there
            back["columns"] = [column or None for column in back["columns"]]
            back["chat"] = back["chat"] or None
        assert back == state, each["fragment"]
        assert not set(each["fragment"]) & set(" \"<>`'\n#"), "nothing that ends a link in a text"
        written.update(each["names"])
    assert written == (KEYS - {"range"} if dimensions < 2 else KEYS), "there is no place for keys or answers"


@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_the_beginning_needs_no_words(modules: CallModule, dimensions: int) -> None:
    fragment, state, nothing = modules(
        "view_state",
        f"""({{ initial, toFragment, fromFragment, column }}, space) => {{
          {STATE_OF}
          return [toFragment(initial(space), space), plain(initial(space)), plain(fromFragment("", space).state)];
        }}""",
        space_of(dimensions),
    )
    assert fragment == ""
    assert state == nothing
    assert_is_valid(state, dimensions)


def test_a_link_names_only_what_differs_from_the_beginning(modules: CallModule) -> None:
    found = modules(
        "view_state",
        """({ initial, toFragment }, space) => {
          const state = initial(space);
          const settings = (change) => ({ settings: { ...state.settings, ...change } });
          return [
            { view: "chat" }, { prompt: "" }, { prompt: "1 + 1" }, { chosen: 2 }, { pinned: state.columns[1].id },
            { chat: null }, { range: { from: 0, to: 2, count: 4 } }, settings({ system: "Be kind." }),
            settings({ temperature: null }), settings({ topP: 0.5 }), settings({ maxTokens: null }),
            settings({ seed: 0 }),
            { columns: state.columns.map((each) => ({ ...each, preference: [250, 250, 500] })) },
          ].map((change) => toFragment({ ...state, ...change }, space));
        }""",
        space_of(3),
    )
    assert found == [
        "view=chat",
        "q=",
        "q=1+%2B+1",
        "steer=3",
        "pin=2",
        "chat=base",
        "range=0.2.4",
        "system=Be+kind.",
        "temperature=auto",
        "top_p=0.5",
        "max_tokens=auto",
        "seed=0",
        "columns=0.25,0.25,0.5;0.25,0.25,0.5;0.25,0.25,0.5",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_a_hostile_link_changes_nothing_and_its_parts_are_named(modules: CallModule, dimensions: int) -> None:
    links = hostile_links(dimensions)
    assert len(links) >= 200
    beginning, _ = opened(modules, dimensions, [""])[0]
    found = opened(modules, dimensions, [link for link, _ in links])
    for (link, named), (state, ignored) in zip(links, found, strict=True):
        assert state == beginning, link[:200]
        assert set(ignored) == named, link[:200]
        assert len(ignored) == len(named), "each is named once"


def test_hostile_parts_leave_good_ones_in_force(modules: CallModule) -> None:
    good = "view=chat&q=Why%3F&columns=0,0,1;base&steer=2&chat=1,0,0&temperature=0.5&seed=7"
    bad = [f"{name}={value}" for name in ("range", "max_tokens", "top_p", "pin") for value in BAD_VALUES]
    found = opened(modules, 3, [link for part in bad for link in (f"{good}&{part}", f"#{part}&{good}")])
    for state, ignored in found:
        assert_is_valid(state, 3)
        assert len(ignored) == 1
        assert (state["view"], state["prompt"], state["columns"]) == ("chat", "Why?", [[0, 0, 1000], None])
        assert (state["chosen"], state["chat"], state["settings"]["seed"]) == (1, [1000, 0, 0], 7)


@pytest.mark.slow
def test_links_of_any_bytes_lead_to_a_valid_state(modules: CallModule) -> None:
    generator = random.Random(8)
    alphabet = [*"#&=;,.%+-019eE \x00\n\ud800é🔪", "base", "triangle", "%E0%A4%A", "Infinity", *sorted(KEYS)]
    links = ["".join(generator.choices(alphabet, k=generator.randint(1, 30))) for _ in range(500)]
    links += ["&".join(f"{name}={generator.choice(alphabet)}" for name in sorted(KEYS)) for _ in range(300)]
    for dimensions in DIMENSIONS:
        for state, _ in opened(modules, dimensions, links):
            assert_is_valid(state, dimensions)


def test_links_of_a_megabyte_are_read_in_no_time(time_of: TimeModule) -> None:
    parts = ["q=one&", "%E0%A4%A", "__proto__=1&", "columns=;", "columns=0,0,1;", "range=.", "seed=9", "chat=,", "q=%"]
    reading = """({ fromFragment }, [space, part]) => {
      const [, name = "", repeated] = /^(\\w+=(?!.*&))?(.*)$/.exec(part);
      fromFragment(name + repeated.repeat(1_000_000 / repeated.length), space);
    }"""
    seconds = {part: time_of("view_state", reading, [space_of(3), part]) for part in parts}
    assert max(seconds.values()) < 2, seconds


@pytest.mark.parametrize("dimensions", [2, 3, 5])
def test_a_range_is_made_of_preferences(modules: CallModule, dimensions: int) -> None:
    generator = random.Random(9)
    ranges = [random_state(generator, dimensions)["range"] for _ in range(60)]
    found = modules(
        "view_state",
        "({ rangeRows }, [dimensions, ranges]) => ranges.map((each) => rangeRows(each, dimensions))",
        [dimensions, ranges],
    )
    for extent, rows in zip(ranges, found, strict=True):
        count = extent["count"]
        assert [len(row) for row in rows] == (list(range(1, count + 1)) if "over" in extent else [count])
        assert all(len(each) == dimensions and sum(each) == 1000 for row in rows for each in row)


@pytest.mark.parametrize("dimensions", [0, 1])
def test_there_is_no_range_without_two_dimensions(modules: CallModule, dimensions: int) -> None:
    assert (
        modules(
            "view_state", "(m, space) => m.rangeRows(m.initial(space).range, space.names.length)", space_of(dimensions)
        )
        == []
    )


def test_a_request_says_what_was_set_and_nothing_else(modules: CallModule) -> None:
    question = {"role": "user", "content": "Why?"}
    unset = {"system": " \n", "temperature": None, "topP": None, "maxTokens": None, "seed": None}
    everything = {"system": " Be kind. ", "temperature": 0, "topP": 0.5, "maxTokens": 7, "seed": 0}
    cases = [
        (space_of(3), unset, [700, 0, 300], [question]),
        (space_of(3), unset, None, [question]),
        (space_of(0), unset, [], [question]),
        (space_of(3), everything, [0, 0, 1000], [question, {"role": "assistant", "content": "So."}, question]),
    ]
    steered, base, plain, full = modules(
        "view_state", "({ chatRequest }, cases) => cases.map((each) => chatRequest(...each))", cases
    )
    preference = {"helpful": 0.7, "harmless": 0, "concise": 0.3}
    assert steered == {"model": "tiny", "messages": [question], "preference": preference}
    assert base == {"model": "tiny:base", "messages": [question]}
    assert plain == {"model": "tiny", "messages": [question]}
    assert full == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": " Be kind. "},
            question,
            {"role": "assistant", "content": "So."},
            question,
        ],
        "preference": {"helpful": 0, "harmless": 0, "concise": 1},
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 7,
        "seed": 0,
    }
