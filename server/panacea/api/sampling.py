"""From a request's fields to the engine's sampling parameters."""

import secrets

from panacea.api.chat_request import ChatRequest
from panacea.api.errors import ApiError
from panacea.engine.outputs import EngineInfo
from panacea.engine.sampling_params import SamplingParams
from panacea.text.generation_defaults import GenerationDefaults


def sampling_params(
    chat: ChatRequest, defaults: GenerationDefaults, info: EngineInfo, prompt_tokens: int
) -> tuple[SamplingParams, ...]:
    """One element for each of the `n` answers.

    Raises `ApiError` (400) or `RequestError` for fields that do not fit together, the prompt or the model.
    """
    _check_combinations(chat)
    max_tokens = _max_tokens(chat, info.context_length, prompt_tokens)
    stop_token_ids = tuple(dict.fromkeys(chat.stop_token_ids or ()))
    if any(token_id >= info.vocab_size for token_id in stop_token_ids):
        raise ApiError(400, f"stop_token_ids must be below the vocabulary's size {info.vocab_size}", "stop_token_ids")
    top_k = defaults.top_k if chat.top_k is None else chat.top_k
    seed = secrets.randbits(63) if chat.seed is None else chat.seed
    return tuple(
        SamplingParams(
            max_tokens=max_tokens,
            temperature=defaults.temperature if chat.temperature is None else chat.temperature,
            top_p=defaults.top_p if chat.top_p is None else chat.top_p,
            top_k=min(max(top_k, 0), info.vocab_size),
            seed=seed,
            choice=choice,
            min_tokens=chat.min_tokens or 0,
            stop_token_ids=stop_token_ids,
            ignore_eos=bool(chat.ignore_eos),
            logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        )
        for choice in range(chat.n or 1)
    )


def _check_combinations(chat: ChatRequest) -> None:
    if chat.stream_options is not None and not chat.stream:
        raise ApiError(400, "stream_options needs stream: true", "stream_options")
    if chat.top_logprobs is not None and not chat.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", "top_logprobs")
    if None not in (chat.max_tokens, chat.max_completion_tokens) and chat.max_tokens != chat.max_completion_tokens:
        raise ApiError(400, "max_tokens and max_completion_tokens are one field under two names", "max_tokens")


def _max_tokens(chat: ChatRequest, context_length: int, prompt_tokens: int) -> int:
    room = context_length - prompt_tokens
    if room < 1:
        raise ApiError(
            400,
            f"the prompt has {prompt_tokens} tokens; with at least one for the answer the context holds "
            f"{context_length}",
            "messages",
            "context_length_exceeded",
        )
    name = "max_tokens" if chat.max_completion_tokens is None else "max_completion_tokens"
    asked = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
    if asked is None:
        return room
    if asked > room:
        raise ApiError(
            400,
            f"{name} must be at most {room} behind this prompt: it has {prompt_tokens} tokens, the context "
            f"{context_length}",
            name,
            "context_length_exceeded",
        )
    return asked
