"""Encodes a rendered conversation such that only the template's own control tokens become control tokens."""

import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

from tokenizers import AddedToken, Encoding, Tokenizer

from panacea.errors import RequestError
from panacea.text.traced_text import MESSAGE, MIXED, TEMPLATE, TracedText, origins_of, plain

_TEMPLATES = re.compile(bytes((TEMPLATE,)) + b"+")
"""Finds the runs of the template's own characters."""


class ControlTokens:
    """The control tokens of a tokenizer, such as `<|end|>`. They mark the turns of a conversation.

    A text is encoded exactly as by transformers if this yields the template's own control tokens and no others. If it
    does not, a client spelled a control token. Then a second tokenizer encodes the text. It knows each control token
    only by a random name, which replaces the names that the template wrote. All other names are plain text for it.
    """

    def __init__(self, tokenizer: Tokenizer, names: Collection[str]) -> None:
        """`names`: the control tokens among the added tokens of `tokenizer`."""
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._ids = {token.content: token_id for token_id, token in added.items() if token.content in names}
        any_name = _any_of(self._ids)
        self._names = re.compile(any_name)
        # Names may overlap, so only a name's first character is consumed.
        self._overlapping = re.compile(f"(?=({any_name}))(.)", re.DOTALL)
        # A character outside the vocabulary becomes the unknown token. It is special, but marks nothing.
        unknown = {*_encoding(tokenizer, "\U0010fffd").ids, tokenizer.token_to_id(_unknown_token(tokenizer))}
        self._marking = set(self._ids.values()) - unknown
        words = {tokenizer.model.token_to_id(name) for name in self._ids}
        self._words = {word for word in words if word is not None} - unknown
        """Control tokens that the vocabulary holds as words, so that plain text may become one."""

    def encode(self, text: TracedText, *, add_special_tokens: bool) -> list[int]:
        """The token ids of a rendered conversation. `add_special_tokens` adds those of the tokenizer around it.

        Raises `RequestError` (param "messages") if the origin of a control token is unknown, or if the tokenizer makes
        control tokens of plain text.
        """
        spelled = plain(text)
        own = list(self._own(spelled, origins_of(text)))
        if own == [match.span() for match in self._names.finditer(spelled)]:
            encoding = _encoding(self._tokenizer, spelled)
            if self._marks(encoding.ids) == self._marks(self._ids[spelled[start:end]] for start, end in own):
                return self._tokenizer.post_process(encoding).ids if add_special_tokens else encoding.ids
        self._check_origins(spelled, origins_of(text))
        for is_cut in (False, True):
            encoding = _encoding(self._renamed.tokenizer, self._with_new_names(spelled, own, is_cut=is_cut))
            if self._words.isdisjoint(encoding.ids):
                return self._with_old_ids(encoding, add_special_tokens=add_special_tokens)
        raise RequestError("messages: the text contains a control token of this model; remove it", "messages")

    def _own(self, text: str, origins: bytes) -> Iterator[tuple[int, int]]:
        """The spans (start, end) of the control tokens that the template wrote."""
        for run in _TEMPLATES.finditer(origins):
            for match in self._names.finditer(text, run.start(), run.end()):
                yield match.span()

    def _marks(self, ids: Iterable[int]) -> list[int]:
        return [token_id for token_id in ids if token_id in self._marking]

    def _check_origins(self, text: str, origins: bytes) -> None:
        if MIXED not in origins:
            return
        for match in self._overlapping.finditer(text):
            found = origins[match.start(1) : match.end(1)]
            if MIXED in found and MESSAGE not in found:
                raise RequestError(
                    "messages: the model's chat template mixes its control tokens with the text of messages, so that "
                    "they cannot be told apart",
                    "messages",
                )

    @cached_property
    def _renamed(self) -> "_RenamedTokens":
        return _RenamedTokens(self._tokenizer, self._ids)

    def _with_new_names(self, text: str, own: Iterable[tuple[int, int]], *, is_cut: bool) -> str:
        parts: list[str] = []
        last = 0
        for start, end in own:
            parts += (self._rest(text[last:start], is_cut=is_cut), self._renamed.names[text[start:end]])
            last = end
        return "".join([*parts, self._rest(text[last:], is_cut=is_cut)])

    def _rest(self, text: str, *, is_cut: bool) -> str:
        # Some vocabularies hold the names of control tokens as words. Their first character is cut off.
        cut = self._renamed.cut
        return self._overlapping.sub(lambda match: f"{match[2]}{cut}", text) if is_cut else text

    def _with_old_ids(self, encoding: Encoding, *, add_special_tokens: bool) -> list[int]:
        if add_special_tokens:
            encoding = self._tokenizer.post_process(encoding)
        old = self._renamed.old_ids
        return [
            token_id if is_added else old.get(token_id, token_id)
            for token_id, is_added in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
            if is_added or token_id != self._renamed.cut_id
        ]


class _RenamedTokens:
    """A tokenizer that shares all parts of another, but knows its control tokens only by names that nobody can guess.

    It takes a few KB: the vocabulary is shared.
    """

    def __init__(self, original: Tokenizer, control: Mapping[str, int]) -> None:
        nonce = secrets.randbits(64)
        self.names = {name: f"\ue000{nonce}{number:08}\ue001" for number, name in enumerate(control)}
        """The new names by the old ones. Private-use characters and digits stay the same under normalisation."""
        self.cut = f"\ue000{nonce}{len(control):08}\ue001"
        """Written between two parts of a text that are encoded apart."""
        self.tokenizer = Tokenizer(original.model)
        # The normaliser comes first, because it is applied to the names.
        for part in ("normalizer", "pre_tokenizer", "decoder"):
            if (value := getattr(original, part)) is not None:
                setattr(self.tokenizer, part, value)
        added = dict(sorted(original.get_added_tokens_decoder().items()))
        self.tokenizer.add_tokens([_copy(token, self.names.get(token.content)) for token in added.values()])
        self.tokenizer.add_tokens([AddedToken(self.cut, normalized=False)])
        self.old_ids = {self._id(self.names.get(token.content, token.content)): old for old, token in added.items()}
        """The original's ids of added tokens, by those of this tokenizer."""
        self.cut_id = self._id(self.cut)

    def _id(self, name: str) -> int | None:
        return self.tokenizer.token_to_id(name)


def _copy(token: AddedToken, name: str | None) -> AddedToken:
    return AddedToken(
        token.content if name is None else name,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=token.special,
    )


def _encoding(tokenizer: Tokenizer, text: str) -> Encoding:
    # Unlike `encode`, the batch call releases the GIL.
    return tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]


def _unknown_token(tokenizer: Tokenizer) -> str:
    return getattr(tokenizer.model, "unk_token", None) or ""


def _any_of(names: Iterable[str]) -> str:
    """A pattern that finds the longest of `names` at each position."""
    longest_first = sorted(names, key=len, reverse=True)
    if not longest_first:
        return "(?!)"
    # Few characters begin a token. Testing for them first is ten times faster with the 256 tokens of Llama 3.
    first = "".join(sorted({re.escape(name[0]) for name in longest_first}))
    return f"(?=[{first}])(?:{'|'.join(map(re.escape, longest_first))})"
