"""From messages to token ids, so that nobody's text can pass for a special token."""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer

from panacea.errors import RequestError
from panacea.text.chat_template import ChatMessage, ChatTemplate

MAX_CONTROL_TOKENS = 10_000
"""Most control tokens that the text of one conversation may name. Each costs 50 us, and 4 MB could hold 280,000."""


class _Marks(NamedTuple):
    """Two strings that nobody can guess. Each is a place where the rendered text is cut."""

    open: str
    close: str

    @classmethod
    def draw(cls) -> "_Marks":
        nonce = secrets.randbits(64)
        return cls(f"\ue000{nonce}\ue001", f"\ue000{nonce}\ue002")


class PromptEncoder:
    """Renders conversations and encodes them.

    A control token is one that the template writes to say who speaks, such as `<|end|>`: every special token, and every
    other added token that occurs in the template's source. In a message those characters are only text. So they are put
    between marks before the template runs, and the rendered text is cut: at every mark, and behind the first character
    of each control token between two marks. The pieces are encoded one by one. None of them holds all characters of a
    control token from a message, so no such token comes out, whatever stands around. The template still sees a
    message's own words, so its trimming and its conditions work as in training; and a conversation without such
    characters is encoded in one piece, exactly as transformers does it.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, named: Iterable[str]) -> None:
        """`named` are tokens that the model's configuration gives a role to, such as end of sequence."""
        self._tokenizer = tokenizer
        self._template = template
        added = tokenizer.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special} | set(named)
        # Line breaks and the like are added tokens in some vocabularies, and everybody's to write.
        written = {token.content for token in added if token.content.strip() and token.content in template.source}
        self._control = sorted(special | written, key=len, reverse=True)
        self._occurrences = _any_of(self._control)
        self._beginnings = {token[:cut] for token in self._control for cut in range(1, len(token))}
        self._endings = {token[cut:] for token in self._control for cut in range(1, len(token))}
        self._longest = max(map(len, self._control), default=0)
        self._insides = "\0".join(token[1:] for token in self._control)

    @property
    def variables(self) -> frozenset[str]:
        """What a request may tell the template, beside the messages."""
        return self._template.free_variables

    def encode(
        self,
        messages: Sequence[ChatMessage],
        variables: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
        add_special_tokens: bool = False,
    ) -> list[int]:
        """The token ids of the conversation, up to where the assistant's next answer begins.

        `variables` are JSON values by name (see `variables`). `add_special_tokens` puts those of the tokenizer around
        it, which most templates write themselves.

        Raises `RequestError` (param "messages" or "chat_template_kwargs") if the template or the tokenizer cannot take
        them.
        """
        # Marks would change what the template compares these with; so they may not hold what needs any.
        if any(self._touches_control(text) for text in _strings(variables)):
            raise RequestError(
                "chat_template_kwargs: the text contains a control token of this model, or a part of one",
                "chat_template_kwargs",
            )
        for message in messages:
            if self._is_unbreakable(message.content):
                raise RequestError("messages: the text contains a control token of this model", "messages")
        if sum(self._count(message.content) for message in messages) > MAX_CONTROL_TOKENS:
            raise RequestError("messages: the text names too many control tokens of this model", "messages")
        marks = _Marks.draw()
        marked = [replace(message, content=self._marked(message.content, marks)) for message in messages]
        rendered = self._template.render(marked, variables, add_generation_prompt=add_generation_prompt)
        # Unlike `encode`, the batch call lets other threads run.
        encodings = self._tokenizer.encode_batch_fast(list(self._pieces(rendered, marks)), add_special_tokens=False)
        if add_special_tokens:
            return self._tokenizer.post_process(Encoding.merge(encodings)).ids
        return [token_id for encoding in encodings for token_id in encoding.ids]

    def _marked(self, content: str, marks: _Marks) -> str:
        regions = self._regions(content)
        inserted = [(start, marks.open) for start, _ in regions] + [(end, marks.close) for _, end in regions]
        # A region is recognised by standing between its own two marks, with no other inside.
        ends = (place for place in self._open_ends(content) if not any(start < place < end for start, end in regions))
        inserted += [(place, marks.close) for place in ends]
        # Where one region follows another, the first is closed before the second is opened.
        inserted.sort(key=lambda item: (item[0], item[1] == marks.open))
        parts: list[str] = []
        last = 0
        for place, mark in inserted:
            parts += (content[last:place], mark)
            last = place
        return "".join([*parts, content[last:]])

    def _pieces(self, rendered: str, marks: _Marks) -> Iterator[str]:
        for before, text, after in _between(rendered, marks):
            cuts: list[int] = []
            # A template may have put words of its own between two halves of a message.
            if before == marks.open and after == marks.close and self._regions(text) == [(0, len(text))]:
                cuts = [match.start() + 1 for match in self._occurrences.finditer(text)]
            yield from (text[start:end] for start, end in pairwise([0, *cuts, len(text)]) if start < end)

    def _count(self, text: str) -> int:
        return len(self._occurrences.findall(text))

    def _regions(self, content: str) -> list[tuple[int, int]]:
        """Where control tokens stand, overlapping ones together."""
        regions: list[tuple[int, int]] = []
        for match in self._occurrences.finditer(content):
            start, end = match.span(1)
            if regions and start < regions[-1][1]:
                start, end = regions[-1][0], max(end, regions.pop()[1])
            regions.append((start, end))
        return regions

    def _open_ends(self, content: str) -> set[int]:
        """Where to cut so that the template's own words around a message, trimmed or not, complete no control token."""
        places: set[int] = set()
        for text in {content, content.strip()} - {""}:
            start = content.index(text)
            lengths = range(1, min(len(text), self._longest) + 1)
            if text in self._insides or any(text[:length] in self._endings for length in lengths):
                places.add(start)
            places.update(start + len(text) - length + 1 for length in lengths if text[-length:] in self._beginnings)
        return places

    def _is_unbreakable(self, content: str) -> bool:
        if any(len(token) == 1 and token in content for token in self._control):
            return True
        normalizer = self._tokenizer.normalizer
        # "<|end|>" in full-width letters, for one, becomes the token itself in tokenizers that normalise.
        return normalizer is not None and self._count(normalizer.normalize_str(content)) > self._count(content)

    def _touches_control(self, text: str) -> bool:
        lengths = range(1, min(len(text), self._longest) + 1)
        return (
            self._count(text) > 0
            or self._is_unbreakable(text)
            or any(text[:length] in self._endings or text[-length:] in self._beginnings for length in lengths)
        )


def _between(rendered: str, marks: _Marks) -> Iterator[tuple[str, str, str]]:
    """What stands between marks, with the mark before and the mark behind it; none ("") at both ends."""
    # No pattern: a new one for each request would have to be compiled, and would drive others from re's own cache.
    before, sections = "", rendered.split(marks.open)
    for number, section in enumerate(sections, 1):
        *closed, last = section.split(marks.close)
        for text in closed:
            yield before, text, marks.close
            before = marks.close
        yield before, last, marks.open if number < len(sections) else ""
        before = marks.open


def _strings(value: object) -> Iterator[str]:
    """All strings in a JSON value, names among them."""
    match value:
        case str():
            yield value
        case Mapping():
            for name, member in value.items():  # pyright: ignore[reportUnknownVariableType]
                yield from (str(name), *_strings(member))
        case list():
            for member in value:  # pyright: ignore[reportUnknownVariableType]
                yield from _strings(member)
        case _:
            pass


def _any_of(tokens: Sequence[str]) -> re.Pattern[str]:
    """Finds, at each place, the first of `tokens` that stands there; overlapping ones too."""
    if not tokens:
        return re.compile("(?!)()")
    # Few characters begin a token: looking for them first is ten times faster with the 256 tokens of Llama 3.
    first = "".join(sorted({re.escape(token[0]) for token in tokens}))
    return re.compile(f"(?=[{first}])(?=({'|'.join(map(re.escape, tokens))}))")
