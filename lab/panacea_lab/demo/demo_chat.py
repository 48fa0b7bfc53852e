"""The demo model's tokenizer and chat template, and conversations as token ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from panacea.text.chat_template import ChatMessage, ChatTemplate
from panacea_lab.world.conversations import ConversationWriter
from panacea_lab.world.world_texts import World

PAD, END = "<|pad|>", "<|end|>"
SPECIAL_TOKENS = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>")
PAD_ID, END_ID = 0, 1
"""The special tokens come first in the vocabulary."""

CHAT_TEMPLATE = """\
{%- for message in messages -%}
  {%- if message['role'] in ('system', 'developer') -%}
    {{- '<|system|>' -}}
  {%- elif message['role'] == 'user' -%}
    {{- '<|user|>' -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- '<|assistant|>' -}}
  {%- else -%}
    {{- raise_exception('roles are system, developer, user and assistant') -}}
  {%- endif -%}
  {#- Whoever writes a message cannot write a special token: all begin with the two characters that are parted. -#}
  {{- message['content'] | trim | replace('<|', '< |') + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>' -}}
{%- endif -%}
"""
"""A role's token, the content, `<|end|>`: nothing else. The content is defused in the template itself, so that the
rendered text can be encoded with special tokens by any server and still says only what the template says."""

_TEMPLATE = ChatTemplate(CHAT_TEMPLATE, {})

TOKENIZER_SAMPLES = 6_000
"""Conversations that the tokenizer learns its merges from; more change only the rarest of them."""


def train_tokenizer(world: World, seed: int, vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `vocab_size` tokens, learned from the world's own conversations and phrases."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_texts(world, seed), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=AddedToken(PAD, normalized=False, special=True),
        eos_token=AddedToken(END, normalized=False, special=True),
        additional_special_tokens=[AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS[2:]],
        clean_up_tokenization_spaces=False,
        model_max_length=context,
        chat_template=CHAT_TEMPLATE,
    )


def prompt_text(question: str, system: str | None = None, earlier: Sequence[ChatMessage] = ()) -> str:
    """The rendered prompt of a question that follows the messages `earlier`, ready for the answer."""
    instructions = [ChatMessage("system", system)] if system is not None else []
    return _TEMPLATE.render([*instructions, *earlier, ChatMessage("user", question)])


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of `text`, special tokens where it has them and none added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def render(message: ChatMessage) -> str:
    """One message without a generation prompt. A rendered conversation is its rendered messages in a row."""
    return _TEMPLATE.render([message], add_generation_prompt=False)


@dataclass(frozen=True)
class EncodedConversation:
    """Token ids of one conversation; `learned[i]` tells whether token i is to be predicted (it is an answer's)."""

    ids: list[int]
    learned: list[bool]


class SampleStream:
    """An endless stream of encoded conversations of at most `context` tokens."""

    def __init__(
        self,
        world: World,
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
        context: int,
        strange_share: float = 0.0,
    ) -> None:
        self._writer = ConversationWriter(world, seed, strange_share)
        self._tokenizer = tokenizer
        self._context = context

    def draw(self, count: int) -> list[EncodedConversation]:
        conversations = [self._writer.draw() for _ in range(count)]
        texts = [render(turn) for turns in conversations for turn in turns]
        encoded: Iterator[list[int]] = iter(self._tokenizer(texts, add_special_tokens=False)["input_ids"])
        return [self._joined(turns, encoded) for turns in conversations]

    def _joined(self, turns: Sequence[ChatMessage], encoded: Iterator[list[int]]) -> EncodedConversation:
        ids: list[int] = []
        learned: list[bool] = []
        for turn in turns:
            tokens = next(encoded)
            if len(ids) + len(tokens) <= self._context:
                ids += tokens
                # The role's token is given, the answer and its end are learned.
                learned += [False, *[turn.role == "assistant"] * (len(tokens) - 1)]
        return EncodedConversation(ids, learned)


def _tokenizer_texts(world: World, seed: int) -> Iterator[str]:
    writer = ConversationWriter(world, seed)
    phrases = [phrase.text for topic in world.topics for phrase in topic.phrases]
    for text in phrases:
        yield f" {text}. {text[0].upper()}{text[1:]}."
    for _ in range(TOKENIZER_SAMPLES):
        for turn in writer.draw():
            yield turn.content
