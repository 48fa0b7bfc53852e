"""The tokens of a prompt, as answers with scores of the prompt report them."""

from collections.abc import Sequence
from dataclasses import dataclass

from panacea.engine.outputs import PromptLogprob
from panacea.text.answer import Alternative, TokenLogprob
from panacea.text.detokenizer import Detokenizer
from panacea.text.model_text import ModelTokens


@dataclass(frozen=True)
class PromptTokens:
    """The bytes of each token, and the offset of its text in the shown text."""

    tokens: tuple[bytes, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, text: ModelTokens, prompt_ids: Sequence[int], shown: str) -> "PromptTokens":
        """`shown` is the prompt's text: the decoded tokens, or the text that they were encoded from.

        Tokens that the tokenizer put before the text have offset 0. If the tokenizer changed the text (to a Unicode
        normal form, for example), offsets are those in the changed text, limited to the length of `shown`.
        """
        detokenizer = Detokenizer(text.tokenizer, ())
        starts: list[int] = []
        decoded = ""
        for token_id in prompt_ids:
            starts.append(len(decoded))
            decoded += detokenizer.push(token_id)
        decoded += detokenizer.flush()
        added = len(decoded) - len(shown) if decoded.endswith(shown) else 0
        return cls(
            tuple(text.vocabulary.token_bytes(token_id) for token_id in prompt_ids),
            tuple(min(max(0, start - added), len(shown)) for start in starts),
        )

    def logprobs(self, text: ModelTokens, scores: Sequence[PromptLogprob]) -> list[TokenLogprob]:
        """The scores of all tokens but the first, which has none."""
        of = text.vocabulary.token_bytes
        return [
            TokenLogprob(
                Alternative(token, score.logprob),
                tuple(Alternative(of(token_id), logprob) for token_id, logprob in score.top_logprobs),
                start,
            )
            for token, start, score in zip(self.tokens[1:], self.starts[1:], scores, strict=True)
        ]
