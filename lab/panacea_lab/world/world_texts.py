"""The hand-written texts of the world, read from `texts/*.toml` and checked."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

TEXTS = Path(__file__).parent / "texts"

PhraseKind = Literal["need", "step", "tip", "caution", "risk", "alternative"]

PHRASE = re.compile(r"[a-z][a-z' -]*(, [a-z' -]+)*")
"""Plain lower-case ASCII words: the answers' sentences add capitals and full stops, and the rewards take them off."""


class WorldError(ValueError):
    """The texts break a rule of `texts/README.md`; the message names file, entry and rule."""


@dataclass(frozen=True)
class Phrase:
    """One piece of knowledge about one topic. Answers are assembled from these and judged by them."""

    kind: PhraseKind
    text: str


@dataclass(frozen=True)
class Topic:
    """A task, or a dangerous request: something that a question can be about.

    Tasks have a need, steps, tips and cautions; dangerous requests have steps, a risk and alternatives.
    """

    name: str
    aliases: tuple[str, ...]
    steps: tuple[str, ...]
    need: str = ""
    tips: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    risk: str = ""
    alternatives: tuple[str, ...] = ()

    @property
    def dangerous(self) -> bool:
        return bool(self.risk)

    @property
    def wordings(self) -> tuple[str, ...]:
        """The ways to name the topic; each completes "How do I ...?"."""
        return (self.name, *self.aliases)

    @cached_property
    def phrases(self) -> tuple[Phrase, ...]:
        """All that can be said about the topic, in the order in which an answer says it."""
        slots: tuple[tuple[PhraseKind, tuple[str, ...]], ...] = (
            ("need", (self.need,) if self.need else ()),
            ("step", self.steps),
            ("tip", self.tips),
            ("caution", self.cautions),
            ("risk", (self.risk,) if self.risk else ()),
            ("alternative", self.alternatives),
        )
        return tuple(Phrase(kind, text) for kind, texts in slots for text in texts)


@dataclass(frozen=True)
class Intent:
    """Something that is said outside the tasks: ways to say it, replies, and hints at what the model does know."""

    name: str
    asks: tuple[str, ...]
    replies: tuple[str, ...]
    hints: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """Everything that the demo model can learn."""

    topics: tuple[Topic, ...]
    intents: tuple[Intent, ...]
    """The last one is `unknown`: questions that the model has no answer to."""
    templates: tuple[str, ...]
    """Questions with `{task}` in them."""
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    suggestions: tuple[str, ...]
    """Sentences with `{task}` that propose a task."""
    system_prompts: tuple[str, ...]
    situations: tuple[str, ...]
    """Sentences about daily life that say nothing about the task: the model learns to look past them."""
    fillers: tuple[str, ...]
    """Small words that stand around the words that matter."""
    common_words: tuple[str, ...]
    """Common words of any kind, strewn around questions late in the training."""
    endings: tuple[str, ...]
    """What a question may end with when it is not one of the templates."""

    @property
    def tasks(self) -> tuple[Topic, ...]:
        return tuple(topic for topic in self.topics if not topic.dangerous)

    @property
    def dangers(self) -> tuple[Topic, ...]:
        return tuple(topic for topic in self.topics if topic.dangerous)

    @cached_property
    def by_name(self) -> Mapping[str, Topic]:
        return {topic.name: topic for topic in self.topics}

    @cached_property
    def by_phrase(self) -> Mapping[str, tuple[Topic, PhraseKind]]:
        """Which topic a phrase belongs to, and in which slot."""
        return {phrase.text: (topic, phrase.kind) for topic in self.topics for phrase in topic.phrases}

    def restricted(self, tasks: int, dangers: int) -> "World":
        """The same world with its first topics only, for tests that train in seconds."""
        return replace(self, topics=(*self.tasks[:tasks], *self.dangers[:dangers]))


def load_world(folder: Path = TEXTS) -> World:
    """The world of `folder`. `held_out.toml` is not read here, so nothing that trains can see it.

    Raises `WorldError` when a text breaks a rule.
    """
    tasks = [
        topic
        for path in sorted(folder.glob("tasks_*.toml"))
        for topic in _topics(_read(path)["task"], tips=2, steps=4, cautions=3, alternatives=0)
    ]
    dangers = _topics(_read(folder / "dangerous.toml")["dangerous"], tips=0, steps=3, cautions=0, alternatives=2)
    phrasings, outside, everyday = (_read(folder / f"{name}.toml") for name in ("phrasings", "outside", "everyday"))
    intents = [_intent(entry["name"], entry) for entry in outside["intent"]]
    world = World(
        topics=(*tasks, *dangers),
        intents=(*intents, _intent("unknown", outside["unknown"])),
        templates=tuple(phrasings["templates"]),
        prefixes=tuple(phrasings["prefixes"]),
        suffixes=tuple(phrasings["suffixes"]),
        suggestions=tuple(outside["suggestion"]["templates"]),
        system_prompts=tuple(outside["system"]["prompts"]),
        situations=tuple(everyday["situations"]),
        fillers=tuple(everyday["fillers"]),
        common_words=tuple(everyday["words"].split()),
        endings=tuple(everyday["endings"]),
    )
    for problem in find_problems(world):
        raise WorldError(problem)
    return world


def find_problems(world: World) -> Iterator[str]:
    """Every break of the rules of `texts/README.md`, one sentence each."""
    entries = [(topic, phrase) for topic in world.topics for phrase in topic.phrases]
    for topic, phrase in entries:
        if not PHRASE.fullmatch(phrase.text):
            yield f"{topic.name!r}: the {phrase.kind} {phrase.text!r} is not plain lower-case words"
    for (topic, phrase), (other, second) in combinations(entries, 2):
        if f" {phrase.text} " in f" {second.text} " or f" {second.text} " in f" {phrase.text} ":
            yield f"{phrase.text!r} of {topic.name!r} is contained in {second.text!r} of {other.name!r} or equals it"
    wordings = [(topic.name, wording) for topic in world.topics for wording in topic.wordings]
    for (name, wording), (other_name, second_wording) in combinations(wordings, 2):
        if wording == second_wording:
            yield f"{name!r} and {other_name!r} are both called {wording!r}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise WorldError(f"{path}: {error}") from None


def _topics(entries: list[dict[str, Any]], **counts: int) -> list[Topic]:
    topics: list[Topic] = []
    for entry in entries:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        topics.append(Topic(**values))
    for topic in topics:
        for slot, count in counts.items():
            if len(getattr(topic, slot)) != count:
                raise WorldError(f"{topic.name!r} needs {count} {slot}")
    return topics


def _intent(name: str, entry: dict[str, Any]) -> Intent:
    return Intent(name, tuple(entry["asks"]), tuple(entry["replies"]), tuple(entry.get("hints", ())))
