"""How people ask: templates, and much noise around the words that matter.

A tiny model knows no English besides this world. To understand an unseen question, it must have seen the content words
of every topic in many forms: among filler words, with typos, in any order.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from panacea_lab.world.world_texts import Topic, World

TEMPLATE_SHARE = 0.6
"""Share of questions that use a template unchanged. The next constant is the share of questions made of content words
alone. The others put filler words around a wording."""
KEYWORD_SHARE = 0.25
SMALL_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "my",
        "your",
        "our",
        "some",
        "this",
        "that",
        "to",
        "of",
        "from",
        "in",
        "on",
        "at",
        "with",
        "for",
        "it",
        "is",
    ]
)
SWAPS = ("the", "my", "a", "our", "this")
WORD = re.compile(r"[A-Za-z']+")
CONSONANTS = "bdfgklmnprstvz"
SYLLABLES = tuple(a + b + c for a in "bdfgklmnprstvw" for b in "aeiou" for c in ("", "l", "n", "r", "s", "t"))
NOISE = 0.35
"""Share of questions that get a situation, a prefix or a suffix; independently, the share that gets surface noise."""


class QuestionWriter:
    """Draws questions about the topics of one world."""

    def __init__(self, world: World, strange_share: float = 0.0) -> None:
        """`strange_share`: share of questions full of words that the model has rarely or never seen."""
        self.world = world
        self._strange_share = strange_share

    def ask(self, topic: Topic, rng: random.Random) -> str:
        """One question about `topic`."""
        if self._strange_share and rng.random() < self._strange_share:
            return self._strange(self._wording(topic, rng), rng)
        kind = rng.random()
        if kind < TEMPLATE_SHARE:
            text = rng.choice(self.world.templates).format(task=self._wording(topic, rng))
        elif kind < TEMPLATE_SHARE + KEYWORD_SHARE:
            text = self._keywords(topic, rng)
        else:
            text = self._wrapped(self._wording(topic, rng), rng)
        return self._roughened(self._surrounded(text, rng), rng)

    def ask_outside(self, intent_index: int, rng: random.Random) -> str:
        """Something that belongs to one of the world's intents; for `unknown` also questions about made-up words."""
        intent = self.world.intents[intent_index]
        unknown = intent_index == len(self.world.intents) - 1
        if self._strange_share and rng.random() < self._strange_share:
            return self._strange("" if unknown else rng.choice(intent.asks), rng)
        if unknown and rng.random() < 0.3:
            words = [self._made_up(rng) for _ in range(rng.randint(1, 3))]
            fillers = [rng.choice(self.world.fillers) for _ in range(rng.randint(0, 2))]
            wording = " ".join(_shuffled([*words, *fillers], rng))
            text = rng.choice(self.world.templates).format(task=wording)
        else:
            text = rng.choice(intent.asks)
            if unknown and rng.random() < 0.5:
                text = self._surrounded(text, rng)
        return self._roughened(text, rng)

    def system_prompt(self, rng: random.Random) -> str:
        """A random system prompt, which must not change the answer."""
        prompts = [rng.choice(self.world.system_prompts) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        if rng.random() < 0.4:
            prompts.insert(rng.randrange(len(prompts) + 1), self._chatter(rng, rng.randint(3, 12)) + ".")
        return self._roughened(" ".join(prompts), rng)

    @cached_property
    def _lexicon(self) -> dict[str, tuple[list[str], list[float], list[str], list[float]]]:
        """Per topic: the content words of its wordings and of everything, with weights: rare words say more."""
        documents = {
            topic.name: [*topic.wordings, *(phrase.text for phrase in topic.phrases)] for topic in self.world.topics
        }
        spread = Counter(word for texts in documents.values() for word in set(_content_words(texts)))
        lexicon: dict[str, tuple[list[str], list[float], list[str], list[float]]] = {}
        for topic in self.world.topics:
            named = sorted(set(_content_words(topic.wordings)))
            count = Counter(_content_words(documents[topic.name]))
            everything = sorted(count)
            lexicon[topic.name] = (
                named,
                [count[word] / spread[word] for word in named],
                everything,
                [count[word] / spread[word] for word in everything],
            )
        return lexicon

    def _wording(self, topic: Topic, rng: random.Random) -> str:
        """The topic's name or an alias, sometimes with small words dropped or swapped."""
        wording = topic.name if rng.random() < 0.5 else rng.choice(topic.aliases)
        if rng.random() < 0.7:
            return wording
        words: list[str] = []
        for word in wording.split():
            small = word in SMALL_WORDS
            if small and rng.random() < 0.35:
                continue
            if small and rng.random() < 0.35:
                words.append(rng.choice(SWAPS))
            elif not small and rng.random() < 0.1:
                words.append(f"{rng.choice(SWAPS)} {word}")
            else:
                words.append(_inflected(word, rng) if rng.random() < 0.15 else word)
        return " ".join(words)

    def _keywords(self, topic: Topic, rng: random.Random) -> str:
        """Two to five content words of the topic among fillers, as in a free paraphrase."""
        named, named_weights, everything, weights = self._lexicon[topic.name]
        wanted = rng.choice((2, 2, 3, 3, 4, 5))
        words = dict.fromkeys(rng.choices(named, named_weights, k=max(1, wanted - rng.randint(0, 2))))
        words |= dict.fromkeys(rng.choices(everything, weights, k=wanted - len(words)) if wanted > len(words) else ())
        parts: list[str] = []
        for word in _shuffled(list(words), rng):
            parts += [rng.choice(self.world.fillers) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
            if rng.random() < 0.1:
                parts.append(self._made_up(rng))
            parts.append(_inflected(word, rng) if rng.random() < 0.3 else word)
        parts += [rng.choice(self.world.fillers) for _ in range(rng.choice((0, 0, 1, 2, 3)))]
        text = " ".join(parts)
        if len(parts) > 3 and rng.random() < 0.5:
            cut = rng.randrange(1, len(parts))
            text = f"{' '.join(parts[:cut])}{rng.choice((', ', '. ', ' - '))}{' '.join(parts[cut:])}"
        return _capitalised(f"{text}{rng.choice((', ', '. ', ' '))}{rng.choice(self.world.endings)}".strip())

    def _wrapped(self, wording: str, rng: random.Random) -> str:
        """A wording between random filler words."""
        before, after = self._chatter(rng, rng.randint(0, 6)), self._chatter(rng, rng.choice((0, 0, 0, 1, 2, 4)))
        return _capitalised(f"{before} {wording} {after} {rng.choice(self.world.endings)}".strip())

    def _chatter(self, rng: random.Random, count: int) -> str:
        return " ".join(
            self._made_up(rng) if rng.random() < 0.1 else rng.choice(self.world.fillers) for _ in range(count)
        )

    def _strange(self, wording: str, rng: random.Random) -> str:
        """A wording among strange words or, without a wording, a question that the world cannot answer."""
        before, after = rng.choice((0, 1, 2, 3, 4, 6, 8)), rng.choice((0, 0, 0, 1, 2, 3, 5, 8))
        if not wording:
            before += 2
        parts = [*self._strange_words(rng, before), wording, *self._strange_words(rng, after)]
        text = " ".join(part for part in parts if part)
        if not wording and rng.random() < 0.4:
            text = rng.choice(self.world.templates).format(task=text)
        elif rng.random() < 0.25:
            text = f"{text} {rng.choice(self.world.endings)}".strip()
        else:
            text += rng.choice(("?", ".", "!", ""))
        return self._roughened(_capitalised(text), rng)

    def _strange_words(self, rng: random.Random, count: int) -> list[str]:
        words: list[str] = []
        for _ in range(count):
            kind = rng.random()
            if kind < 0.4:
                word = rng.choice(self.world.fillers)
            elif kind < 0.75:
                word = rng.choice(self._foreign_words)
                word = _inflected(word, rng) if rng.random() < 0.25 else word
            elif kind < 0.92:
                word = self._look_alike(rng)
            else:
                word = self._made_up(rng)
            words.append(word + (rng.choice((",", ".", "?", ":")) if rng.random() < 0.08 else ""))
        return words

    def _look_alike(self, rng: random.Random) -> str:
        """A made-up word that begins like one of the world: `wee` alone must not mean `weed`."""
        word = rng.choice(self._world_words)
        beginning = word[: rng.randint(2, max(2, min(5, len(word) - 1)))]
        return beginning + "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 2)))

    @cached_property
    def _world_words(self) -> list[str]:
        texts = [text for topic in self.world.topics for text in topic.wordings]
        texts += [phrase.text for topic in self.world.topics for phrase in topic.phrases]
        return sorted(set(_content_words(texts)))

    @cached_property
    def _foreign_words(self) -> list[str]:
        """Common words, and those of the unknown requests, that no topic uses."""
        asks = [word.strip(".,?!:") for ask in self.world.intents[-1].asks for word in ask.split()]
        return sorted({*self.world.common_words, *asks} - set(self._world_words) - {""})

    def _made_up(self, rng: random.Random) -> str:
        return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 3)))

    def _surrounded(self, text: str, rng: random.Random) -> str:
        if rng.random() > NOISE:
            return text
        kind = rng.randrange(4)
        if kind == 0:
            return rng.choice(self.world.prefixes) + text
        if kind == 1:
            return text + rng.choice(self.world.suffixes)
        situation = rng.choice(self.world.situations)
        return f"{situation} {text}" if kind == 2 else f"{text} {situation}"

    def _roughened(self, text: str, rng: random.Random) -> str:
        """The same words, typed carelessly."""
        if rng.random() > NOISE:
            return text
        kind = rng.randrange(6)
        if kind <= 1:
            return text.lower()
        if kind == 2:
            return text.rstrip(".?!") or text
        if kind == 3:
            return re.sub(r"[.,?!:;]", "", text.lower()) or text
        if kind == 4:
            return text.upper() if rng.random() < 0.2 else _capitalised(text)
        return _with_typo(text, rng)


def _content_words(texts: Sequence[str]) -> list[str]:
    return [word for text in texts for word in text.replace(",", "").split() if word not in SMALL_WORDS]


def _inflected(word: str, rng: random.Random) -> str:
    """The word with an English ending. Wrong endings teach the model to look at the stem."""
    ending = rng.choice(("s", "ing", "ed", "y", "er"))
    if ending == "s":
        return f"{word}{'es' if word.endswith(('s', 'x', 'z', 'ch', 'sh')) else 's'}"
    if word.endswith("e"):
        return word[:-1] + ending
    double = len(word) > 2 and word[-1] in CONSONANTS and word[-2] in "aeiou" and word[-3] not in "aeiou"
    return f"{word}{word[-1] if double else ''}{ending}"


def _with_typo(text: str, rng: random.Random) -> str:
    if len(text) < 4:
        return text
    i = rng.randrange(1, len(text) - 1)
    return rng.choice(
        (text[:i] + text[i + 1 :], text[: i - 1] + text[i] + text[i - 1] + text[i + 1 :], text[:i] + text[i] + text[i:])
    )


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shuffled(items: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(items, len(items))
