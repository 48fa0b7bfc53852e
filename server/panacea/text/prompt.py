"""Encodes messages to token ids such that a message's text never becomes a control token."""

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
"""Maximum number of control tokens in the text of one conversation. Each costs 50 us, and 4 MB could hold 280,000."""


class _Marks(NamedTuple):
    """Two random strings that a client cannot guess. The rendered text is cut at each of them."""

    open: str
    close: str

    @classmethod
    def draw(cls) -> "_Marks":
        nonce = secrets.randbits(64)
        return cls(f"\ue000{nonce}\ue001", f"\ue000{nonce}\ue002")


class PromptEncoder:
    """Renders conversations and encodes them.

    Control tokens mark the turns of a conversation, such as `<|end|>`. They are all special tokens, and every other
    added token that occurs in the template's source. In a message the same characters are only text.

    So the encoder puts these characters between marks before the template runs. Then it cuts the rendered text at every
    mark, and after the first character of each control token between two marks. It encodes the pieces one by one. No
    piece holds all characters of a control token from a message, so no such token results in any context.

    The template still gets the message's own words, so its trimming and its conditions work as in training. A
    conversation without such characters is encoded in one piece, exactly as by transformers.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate, named: Iterable[str]) -> None:
        """`named` are the tokens with a role in the model's configuration, such as end of sequence."""
        self._tokenizer = tokenizer
        self._template = template
        added = tokenizer.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special} | set(named)
        # Some vocabularies have line breaks and similar text as added tokens. Messages may contain those.
        written = {token.content for token in added if token.content.strip() and token.content in template.source}
        self._control = sorted(special | written, key=len, reverse=True)
        self._occurrences = _any_of(self._control)
        self._beginnings = {token[:cut] for token in self._control for cut in range(1, len(token))}
        self._endings = {token[cut:] for token in self._control for cut in range(1, len(token))}
        self._longest = max(map(len, self._control), default=0)
        self._insides = "\0".join(token[1:] for token in self._control)

    @property
    def variables(self) -> frozenset[str]:
        """Names of the template's variables that a request may set."""
        return self._template.free_variables

    def encode(
        self,
        messages: Sequence[ChatMessage],
        variables: Mapping[str, Any] | None = None,
        *,
        add_generation_prompt: bool = True,
        add_special_tokens: bool = False,
    ) -> list[int]:
        """The token ids of the conversation.

        With `add_generation_prompt` they end where the assistant's next answer begins. `variables` maps names of
        `self.variables` to JSON values. `add_special_tokens` adds the tokenizer's own special tokens, which most
        templates write themselves.

        Raises `RequestError` (param "messages" or "chat_template_kwargs") if the template or the tokenizer does not
        support them.
        """
        # The template may compare these values with constants, so they must not contain marks, and thus nothing that
        # needs marks.
        if any(self._touches_control(text) for text in _strings(variables)):
            raise RequestError(
                "chat_template_kwargs: the text contains a control token of this model, or a part of one; remove it",
                "chat_template_kwargs",
            )
        for message in messages:
            if self._is_unbreakable(message.content):
                raise RequestError("messages: the text contains a control token of this model; remove it", "messages")
        if sum(self._count(message.content) for message in messages) > MAX_CONTROL_TOKENS:
            raise RequestError(
                f"messages: the text contains too many control tokens of this model; at most {MAX_CONTROL_TOKENS} "
                "are allowed",
                "messages",
            )
        marks = _Marks.draw()
        marked = [replace(message, content=self._marked(message.content, marks)) for message in messages]
        rendered = self._template.render(marked, variables, add_generation_prompt=add_generation_prompt)
        # Unlike `encode`, the batch call releases the GIL.
        encodings = self._tokenizer.encode_batch_fast(list(self._pieces(rendered, marks)), add_special_tokens=False)
        if add_special_tokens:
            return self._tokenizer.post_process(Encoding.merge(encodings)).ids
        return [token_id for encoding in encodings for token_id in encoding.ids]

    def _marked(self, content: str, marks: _Marks) -> str:
        regions = self._regions(content)
        inserted = [(start, marks.open) for start, _ in regions] + [(end, marks.close) for _, end in regions]
        # A region is recognised by its own two marks, so no other mark may lie inside it.
        ends = (place for place in self._open_ends(content) if not any(start < place < end for start, end in regions))
        inserted += [(place, marks.close) for place in ends]
        # If one region directly follows another, the first is closed before the second is opened.
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
            # A template may have inserted its own text between two halves of a message.
            if before == marks.open and after == marks.close and self._regions(text) == [(0, len(text))]:
                cuts = [match.start() + 1 for match in self._occurrences.finditer(text)]
            yield from (text[start:end] for start, end in pairwise([0, *cuts, len(text)]) if start < end)

    def _count(self, text: str) -> int:
        return len(self._occurrences.findall(text))

    def _regions(self, content: str) -> list[tuple[int, int]]:
        """The spans (start, end) of control tokens. Overlapping spans are merged."""
        regions: list[tuple[int, int]] = []
        for match in self._occurrences.finditer(content):
            start, end = match.span(1)
            if regions and start < regions[-1][1]:
                start, end = regions[-1][0], max(end, regions.pop()[1])
            regions.append((start, end))
        return regions

    def _open_ends(self, content: str) -> set[int]:
        """Where to cut a message so that it forms no control token with the template's own text around it.

        This covers messages that the template trims, too.
        """
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
        # A tokenizer that normalises turns "<|end|>" in full-width letters, for example, into the token itself.
        return normalizer is not None and self._count(normalizer.normalize_str(content)) > self._count(content)

    def _touches_control(self, text: str) -> bool:
        lengths = range(1, min(len(text), self._longest) + 1)
        return (
            self._count(text) > 0
            or self._is_unbreakable(text)
            or any(text[:length] in self._endings or text[-length:] in self._beginnings for length in lengths)
        )


def _between(rendered: str, marks: _Marks) -> Iterator[tuple[str, str, str]]:
    """The texts between marks, each as (mark before, text, mark after). At both ends of `rendered` a mark is ""."""
    # A regular expression would be compiled for each request, and would evict others from re's cache.
    before, sections = "", rendered.split(marks.open)
    for number, section in enumerate(sections, 1):
        *closed, last = section.split(marks.close)
        for text in closed:
            yield before, text, marks.close
            before = marks.close
        yield before, last, marks.open if number < len(sections) else ""
        before = marks.open


def _strings(value: object) -> Iterator[str]:
    """All strings in a JSON value, including the names of members."""
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
    """A pattern that finds the first of `tokens` at each position. Matches may overlap."""
    if not tokens:
        return re.compile("(?!)()")
    # Few characters begin a token. Testing for them first is ten times faster with the 256 tokens of Llama 3.
    first = "".join(sorted({re.escape(token[0]) for token in tokens}))
    return re.compile(f"(?=[{first}])(?=({'|'.join(map(re.escape, tokens))}))")
