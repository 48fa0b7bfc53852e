"""Keys of cached prefixes: equal if and only if all that keys and values depend on, and the salt, are equal."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from panacea.digest import Digest
from panacea.engine.prefix_keys import ModelIdentity, next_key, root_key
from panacea.model.adapter import Adapter, LowRank
from panacea.model.adapter_config import AdapterConfig
from panacea.model.identity import base_identity
from panacea.preference import Dimension, Preference, PreferenceSpace
from tests.golden_files import ADAPTER, BASE

BLOCK = 2
# Few values, so that equal ones are frequent, and such as would collide if they were glued together.
TEXTS = st.sampled_from(["", "a", "ab", "b", "aa", "1", "11", "\x00", "\x00\x00", "a\x00", "0.5", "panacea", "\ud800"])
NUMBERS = st.sampled_from([0.0, 0.5, 1.0, 2.0])
PREFERENCES = st.one_of(st.none(), st.lists(NUMBERS, max_size=3).map(tuple))
TOKENS = st.lists(st.sampled_from([0, 1, 2, 255, 256, 65536]), max_size=3 * BLOCK)


class Content(NamedTuple):
    """All that an adapter computes with."""

    scaling: float
    columns: tuple[int, ...]
    modules: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]
    dtype: torch.dtype

    def adapter(self, base_model: str = "base") -> Adapter:
        space = PreferenceSpace((Dimension("x"),), (1.0,))
        modules = {
            name: LowRank(
                torch.tensor(a, dtype=self.dtype).reshape(len(self.columns), -1),
                torch.tensor(b, dtype=self.dtype).reshape(-1, len(self.columns)),
                torch.ones(len(self.columns), dtype=self.dtype),
            )
            for name, a, b in self.modules
        }
        return Adapter(AdapterConfig(base_model, self.scaling, ("m",), self.columns, space), modules)


FOUR = st.tuples(NUMBERS, NUMBERS) | st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
CONTENTS = st.builds(
    Content,
    scaling=st.sampled_from([1.0, 2.0]),
    columns=st.sampled_from([(0,), (0, 0), (-1, 0), (0, -1)]),
    modules=st.lists(
        st.tuples(st.sampled_from(["m", "x.m", "xm"]), FOUR, FOUR), min_size=1, max_size=2, unique_by=lambda m: m[0]
    ).map(lambda modules: tuple(sorted(modules))),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)


class Case(NamedTuple):
    """What a key stands for."""

    base: bytes
    adapter: Content | None
    preference: Preference | None
    salt: str
    tokens: list[int]

    def keys(self) -> list[bytes]:
        adapter = None if self.adapter is None else self.adapter.adapter().content_digest()
        keys = [root_key(ModelIdentity(self.base, adapter), self.preference, self.salt)]
        for start in range(0, len(self.tokens), BLOCK):
            keys.append(next_key(keys[-1], self.tokens[start : start + BLOCK]))
        return keys


CASES = st.builds(Case, st.sampled_from([b"", b"a", b"ab"]), st.one_of(st.none(), CONTENTS), PREFERENCES, TEXTS, TOKENS)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[Case, Case]:
    """Two cases that differ in few fields, if in any."""
    first, second = draw(CASES), draw(CASES)
    kept = draw(st.sets(st.sampled_from(Case._fields)))
    return first, second._replace(**{name: getattr(first, name) for name in kept})


@given(neighbours())
def test_keys_are_equal_if_and_only_if_everything_is(pair: tuple[Case, Case]) -> None:
    first, second = pair
    assert (first.keys()[-1] == second.keys()[-1]) == (first == second)


@given(neighbours())
def test_two_requests_share_exactly_the_blocks_up_to_their_first_difference(pair: tuple[Case, Case]) -> None:
    first, second = pair
    shared = sum(mine == other for mine, other in zip(first.keys(), second.keys(), strict=False))
    if first._replace(tokens=[]) != second._replace(tokens=[]):
        assert shared == 0
        return
    a, b = ([tuple(case.tokens[i : i + BLOCK]) for i in range(0, len(case.tokens), BLOCK)] for case in pair)
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    assert shared == 1 + same
    assert not set(first.keys()[shared:]) & set(second.keys()), "no key comes back at another place"


@given(st.lists(st.one_of(st.none(), st.binary(max_size=12)), max_size=4), st.lists(st.binary(max_size=12), max_size=4))
def test_no_two_lists_of_fields_have_one_digest(first: list[bytes | None], second: list[bytes | None]) -> None:
    assert (Digest(b"x").add(*first).value == Digest(b"x").add(*second).value) == (first == second)
    assert Digest(b"x").add(*first).value != Digest(b"y").add(*first).value


@given(PREFERENCES, TEXTS)
def test_the_base_is_like_no_preference(preference: Preference | None, salt: str) -> None:
    assume(preference is not None)
    identity = ModelIdentity(b"base", b"adapter")
    assert root_key(identity, None, salt) != root_key(identity, preference, salt)


def test_minus_zero_is_zero_and_the_smallest_difference_counts() -> None:
    identity = ModelIdentity(b"base", None)
    assert root_key(identity, (-0.0, 1.0), "") == root_key(identity, (0.0, 1.0), "")
    assert root_key(identity, (0.5, 0.5), "") != root_key(identity, (0.5 + 2**-53, 0.5), "")


def test_a_salt_that_is_called_like_an_adapter_is_none() -> None:
    """Nor do a salt and an adapter that change places."""
    for name in ("golden", "adapter", str(ADAPTER)):
        content = name.encode()
        salted = root_key(ModelIdentity(b"base", None), None, name)
        assert salted != root_key(ModelIdentity(b"base", content), None, "")
        assert root_key(ModelIdentity(b"base", content), None, "x") != root_key(
            ModelIdentity(b"base", b"x"), None, name
        )
        assert root_key(ModelIdentity(content, None), None, "") not in (
            salted,
            root_key(ModelIdentity(b"", content), None, ""),
        )


def test_adapters_of_one_name_with_other_content_differ_and_copies_under_other_names_do_not(tmp_path: Path) -> None:
    original = Adapter.read(ADAPTER)
    changed = dict(original.modules)
    name, (a, b, e) = next(iter(changed.items()))
    changed[name] = LowRank(a, b, e.clone())
    changed[name].e[0] += 1e-6
    for folder, adapter in (("one", original), ("two", replace(original, modules=changed))):
        adapter.write(tmp_path / folder / "adapter")
    shutil.copytree(ADAPTER, tmp_path / "of another name")
    digest = original.content_digest()
    assert Adapter.read(tmp_path / "one" / "adapter").content_digest() == digest
    assert Adapter.read(tmp_path / "of another name").content_digest() == digest
    assert Adapter.read(tmp_path / "two" / "adapter").content_digest() != digest


def test_what_only_people_read_of_an_adapter_is_no_content() -> None:
    original = Adapter.read(ADAPTER)
    space = replace(original.config.space, presets={"other": (1.0, 0.0, 0.0)})
    described = replace(original, config=replace(original.config, base_model="elsewhere", space=space))
    assert described.content_digest() == original.content_digest()
    scaled = replace(original, config=replace(original.config, scaling=original.config.scaling * 2))
    assert scaled.content_digest() != original.content_digest()


def test_bases_differ_by_dtype_config_and_weight_files(tmp_path: Path) -> None:
    seen = {base_identity(BASE, "float32"), base_identity(BASE, "bfloat16")}
    copy = tmp_path / "base"
    shutil.copytree(BASE, copy)  # keeps times
    assert base_identity(copy, "float32") in seen
    config: Any = (copy / "config.json").read_text("utf-8")
    (copy / "config.json").write_text(config + " ", "utf-8")
    seen.add(base_identity(copy, "float32"))
    (copy / "config.json").write_text(config, "utf-8")
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes())
    seen.add(base_identity(copy, "float32"))
    assert len(seen) == 4
