"""Compares a loaded model with transformers' own forward before it is served: a family that no test proves.

The engine answers a few prompts as it would for clients: in chunks, through the paged cache, steered and not, with the
log probabilities of all tokens. Then transformers computes the same tokens with its own attention, without a cache and
in one piece, on the same weights.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from panacea.config import EngineConfig
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.engine.sampling_params import MAX_LOGPROBS, SamplingParams
from panacea.engine.scheduler import Scheduler
from panacea.errors import CheckpointError, first_line
from panacea.model.loader import LoadedModel
from panacea.model.plain_forward import PlainForward
from panacea.preference import Preference

logger = logging.getLogger(__name__)

PROVEN = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "GemmaForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Olmo2ForCausalLM",
    "SmolLM3ForCausalLM",
    "GraniteForCausalLM",
    "Phi3ForCausalLM",
    "Qwen3MoeForCausalLM",
)
"""transformers' classes that tests/model/test_families.py compares with transformers. Any other is compared at load."""

LIMITS = {torch.float32: (1.0, 0.01), torch.float16: (0.75, 0.05), torch.bfloat16: (0.75, 0.2)}
"""By dtype: the share of positions that must agree, and by how much their log probabilities may differ at most.

The unit is the spread of the logits over the vocabulary. Rounding gave 1e-5 in float32, and up to 0.01 in float16 and
0.07 in bfloat16 at three quarters of the positions (20 families, and Gemma 3 270M). In 16 bits rounding may also send a
token to another expert, which gave 0.3 at single positions.
"""

STEP_TOKENS = 24
"""Most tokens in one step of the proof: not a multiple of the usual blocks, so that chunks end inside blocks."""
WINDOW_STEP_TOKENS = 128
"""The same for the prompt that exceeds the sliding window. With 24, Gemma 3 270M took 64 s instead of 10 s."""
SHORT, LONG = 5, 2 * STEP_TOKENS + 7
"""Lengths of its prompts, in tokens: one chunk, and three of them."""
AFFORDABLE_WINDOW = 1024
"""Longest sliding window, in tokens, that a further prompt exceeds. transformers' attention needs heads x tokens^2
numbers: 0.3 GiB for 32 heads and 1,080 tokens."""
ANSWER_TOKENS = 16

Generate = Callable[[Sequence[Request]], list[Completion]]


def prove(model: LoadedModel, config: EngineConfig, num_blocks: int, engine: Callable[[Scheduler], Generate]) -> None:
    """Compares an engine's answers with transformers' own forward, unless the family is proven or the user trusts it.

    `engine` makes an engine over the model for a scheduler; the cache has `num_blocks`. Logs the result and what it
    cost. Raises `CheckpointError` if the model differs by more than rounding, or cannot be compared.
    """
    name = type(model.network).__name__
    if config.trust_model or name in PROVEN:
        return
    begin = time.monotonic()

    def answered(requests: Sequence[Request], step_tokens: int) -> list[_Answered]:
        batch, step = min(config.max_batch, STEP_TOKENS), min(config.max_step_tokens, step_tokens)
        chunked = Scheduler(num_blocks, config.block_size, batch, step, model.context_length)
        return [_Answered(*pair) for pair in zip(requests, engine(chunked)(requests), strict=True)]

    room = min(model.context_length, num_blocks * config.block_size)
    short, beyond_window = _requests(model, room)
    try:
        answers = [*answered(short, STEP_TOKENS), *answered(beyond_window, WINDOW_STEP_TOKENS)]
        difference = max(answer.difference(model) for answer in answers)
    except CheckpointError:
        raise
    except Exception as error:  # a family's own code may raise anything
        raise CheckpointError(
            f"{name} is not supported: it fails in the engine's steps ({type(error).__name__}: {first_line(error)})"
        ) from error
    _, limit = LIMITS[model.dtype]
    if not difference <= limit:  # also if it is not a number
        raise CheckpointError(
            f"{name} is not supported: its log probabilities differ from transformers' own by {difference:.2g} of the "
            f"logits' spread, and rounding explains at most {limit:g}"
        )
    logger.info(
        "%s was compared with transformers' own forward: a difference of %.2g of the logits' spread (limit %g), in "
        "%.1f s; --trust-model skips this",
        name,
        difference,
        limit,
        time.monotonic() - begin,
    )


@dataclass(frozen=True)
class _Answered:
    """One prompt of the proof, and what the engine answered."""

    request: Request
    completion: Completion

    @property
    def tokens(self) -> list[int]:
        """Prompt and answer without the last token, which no log probability follows."""
        return [*self.request.prompt_ids, *self.completion.token_ids][:-1]

    @property
    def log_probabilities(self) -> list[tuple[list[int], list[float]]]:
        """For each token that was scored, in order: ids and log probabilities of itself and of the likeliest tokens."""
        answer = self.completion
        scored = [(score.logprob, score.top_logprobs) for score in answer.prompt_logprobs or ()]
        scored += zip(answer.logprobs, answer.top_logprobs, strict=True)
        tokens = [*self.request.prompt_ids, *answer.token_ids][-len(scored) :]
        return [
            ([token, *(other for other, _ in top)], [own, *(logprob for _, logprob in top)])
            for token, (own, top) in zip(tokens, scored, strict=True)
        ]

    def difference(self, model: LoadedModel) -> float:
        """The largest difference at the positions that must agree: root mean square over a position's tokens."""
        share, _ = LIMITS[model.dtype]
        got = self.log_probabilities[-LONG:]  # logits of a few positions only: a vocabulary may have 262,144 tokens
        plain = PlainForward(model.network, _column_weights(model, self.request.preference))
        logits = plain.logits(torch.tensor(self.tokens, device=model.device), len(got)).cpu()
        ids = torch.tensor([line for line, _ in got])
        ours = torch.tensor([line for _, line in got])
        theirs = logits.log_softmax(dim=-1).gather(-1, ids)
        error = (ours - theirs).square().mean(dim=-1).sqrt() / logits.std(dim=-1)
        return float(error.quantile(share))


def _requests(model: LoadedModel, context_length: int) -> tuple[list[Request], list[Request]]:
    """Short and long prompts for the base, an inner preference and a vertex; and one longer than the sliding window."""
    generator = torch.Generator().manual_seed(20)
    special = _special_tokens(model)
    ordinary = torch.tensor([token for token in range(model.vocab_size) if token not in special])
    preferences: list[Preference | None] = [None]
    if model.adapter is not None:
        count = len(model.adapter.config.space.dimensions)
        preferences += [(1 / max(1, count),) * count, (1.0, *(0.0,) * (count - 1))[:count]]
    answer = min(ANSWER_TOKENS, context_length // 2)

    def request(length: int, preference: Preference | None, scored: int | None) -> Request:
        params = SamplingParams(answer, temperature=0, ignore_eos=True, logprobs=MAX_LOGPROBS, prompt_logprobs=scored)
        drawn = torch.randint(len(ordinary), (min(length, context_length - answer),), generator=generator)
        return Request(ordinary[drawn].tolist(), preference, params)

    beyond_window: list[Request] = []
    requests = [request(length, each, MAX_LOGPROBS) for each in preferences for length in (SHORT, LONG)]
    window = getattr(model.network.config.get_text_config(decoder=True), "sliding_window", None)
    if window is not None and LONG - STEP_TOKENS < window <= AFFORDABLE_WINDOW:
        # Only the answer is compared, because the log probabilities of 1,000 prompt tokens would take most of the time.
        beyond_window.append(request(window + STEP_TOKENS, preferences[-1], None))
    return requests, beyond_window


def _special_tokens(model: LoadedModel) -> set[int]:
    """Tokens that the config names. Some stand for images, which are no text."""
    named = [value for key, value in vars(model.network.config).items() if key.endswith(("_token_id", "_token_index"))]
    return {token for value in named for token in (value if isinstance(value, list) else [value])}


def _column_weights(model: LoadedModel, preference: Preference | None) -> torch.Tensor:
    if model.adapter is None:
        return torch.zeros(1, device=model.device)
    return torch.tensor(model.adapter.config.column_weights(preference), device=model.device)
