"""Answers made of a topic's phrases: sentence forms, and the mixture that the base model learns.

Every slot is drawn independently, so that the base model's distribution has every mixture of help, care and brevity. An
adapter can only raise the probability of answers that the base can give.
"""

import random
from collections.abc import Mapping, Sequence

from panacea_lab.world.world_texts import PhraseKind, Topic, World

SentenceForm = tuple[str, str]
"""The text before and after a phrase. Without text before it, the phrase begins with a capital letter."""

FORMS: Mapping[PhraseKind, tuple[SentenceForm, ...]] = {
    "need": (("You will need ", "."), ("Have ", " ready.")),
    "step": (("", "."), ("First, ", "."), ("Then ", "."), ("Next, ", "."), ("After that, ", "."), ("Finally, ", ".")),
    "tip": (("Tip: ", "."), ("Also, ", ".")),
    "caution": (("Careful: ", "."), ("Also, ", "."), ("And ", ".")),
    "risk": (("That is dangerous: ", "."),),
    "alternative": (("Rather ", "."), ("Or ", ".")),
}
"""All sentences that carry a phrase; the reader of answers accepts exactly these."""

OPENERS = ("Gladly!", "Of course!", "Sure!", "Good question.", "Here is how.")
CLOSINGS = ("Good luck!", "Enjoy!", "You can do it!", "That is all.", "Take your time.")
REFUSALS = ("Please do not do that.", "No, I will not explain that.", "I would rather not help with that.")

STEP_COUNTS = (0.18, 0.16, 0.2, 0.2, 0.26)
"""How likely an answer has 0, 1, ... steps; the same below for tips, cautions and alternatives."""
TIP_COUNTS = (0.45, 0.3, 0.25)
CAUTION_COUNTS = (0.4, 0.22, 0.2, 0.18)
COMPLIANT_STEP_COUNTS = (0.1, 0.2, 0.25, 0.45)
REFUSING_STEP_COUNTS = (0.85, 0.1, 0.05, 0.0)
ALTERNATIVE_COUNTS = (0.4, 0.3, 0.3)
OPENER_SHARE = CLOSING_SHARE = 0.3
NEED_SHARE = RISK_SHARE = REFUSAL_SHARE = 0.5

ORDERS: tuple[tuple[PhraseKind, ...], ...] = (
    ("need", "step", "tip", "caution"),
    ("need", "step", "caution", "tip"),
    ("need", "caution", "step", "tip"),
    ("caution", "need", "step", "tip"),
)
"""In which order the slots of a task's answer may follow each other; the first is as likely as all others together."""


def sentence(form: SentenceForm, phrase: str) -> str:
    before, after = form
    return f"{before}{phrase}{after}" if before else f"{phrase[0].upper()}{phrase[1:]}{after}"


def draw_answer(topic: Topic, rng: random.Random) -> str:
    """One answer about `topic`, drawn from the base model's mixture. It says at least one thing about the topic."""
    while True:
        body = _dangerous_body(topic, rng) if topic.dangerous else _task_body(topic, rng)
        if body:
            opener = [rng.choice(OPENERS)] if rng.random() < OPENER_SHARE and body[0] not in REFUSALS else []
            closing = [rng.choice(CLOSINGS)] if rng.random() < CLOSING_SHARE and not topic.dangerous else []
            return " ".join([*opener, *body, *closing])


def draw_outside_answer(world: World, intent_index: int, rng: random.Random) -> str:
    """One answer to what lies outside the tasks: a reply, perhaps a hint, perhaps a task to ask for."""
    intent = world.intents[intent_index]
    parts = [rng.choice(intent.replies)]
    if intent.hints and rng.random() < 0.5:
        parts.append(rng.choice(intent.hints))
    if rng.random() < 0.65:
        parts.append(rng.choice(world.suggestions).format(task=rng.choice(world.tasks).name))
    return " ".join(parts)


def _task_body(topic: Topic, rng: random.Random) -> list[str]:
    slots: dict[PhraseKind, list[str]] = {
        "need": [sentence(rng.choice(FORMS["need"]), topic.need)] if rng.random() < NEED_SHARE else [],
        "step": _step_sentences(topic.steps[: _count(STEP_COUNTS, rng)], rng),
        "tip": _listed("tip", _subset(topic.tips, TIP_COUNTS, rng)),
        "caution": _listed("caution", _subset(topic.cautions, CAUTION_COUNTS, rng)),
    }
    order = ORDERS[0] if rng.random() < 0.5 else rng.choice(ORDERS[1:])
    return [text for kind in order for text in slots[kind]]


def _dangerous_body(topic: Topic, rng: random.Random) -> list[str]:
    refuses = rng.random() < REFUSAL_SHARE
    counts = REFUSING_STEP_COUNTS if refuses else COMPLIANT_STEP_COUNTS
    return [
        *([rng.choice(REFUSALS)] if refuses else []),
        *_step_sentences(topic.steps[: _count(counts, rng)], rng),
        *([sentence(FORMS["risk"][0], topic.risk)] if rng.random() < RISK_SHARE else []),
        *_listed("alternative", _subset(topic.alternatives, ALTERNATIVE_COUNTS, rng)),
    ]


def _step_sentences(steps: Sequence[str], rng: random.Random) -> list[str]:
    """The steps with words of order between them, or, as often, without: the same help in fewer words.

    Which word comes next never depends on how many steps will follow, except that only a fourth step is the last.
    """
    bare, first, *middle, last = FORMS["step"]
    if rng.random() < 0.5 or len(steps) == 1:
        return [sentence(bare, step) for step in steps]
    forms = [first, *rng.sample(middle, 2), last]
    return [sentence(form, step) for form, step in zip(forms, steps, strict=False)]


def _listed(kind: PhraseKind, phrases: Sequence[str]) -> list[str]:
    """The first phrase in the first form of its kind, the second in the second, and so on."""
    return [sentence(form, phrase) for form, phrase in zip(FORMS[kind], phrases, strict=False)]


def _subset(phrases: Sequence[str], counts: Sequence[float], rng: random.Random) -> list[str]:
    """A drawn number of phrases, in their own order."""
    chosen = sorted(rng.sample(range(len(phrases)), _count(counts, rng)))
    return [phrases[i] for i in chosen]


def _count(shares: Sequence[float], rng: random.Random) -> int:
    return rng.choices(range(len(shares)), shares)[0]
