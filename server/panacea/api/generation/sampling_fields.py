"""Converts a request's fields to the engine's sampling parameters."""

import re
import secrets
from collections.abc import Mapping

from panacea.api.error_responses import ApiError
from panacea.api.generation.generation_request import GenerationRequest
from panacea.config import Limits
from panacea.engine.outputs import EngineInfo
from panacea.engine.sampling_params import SamplingParams
from panacea.text.generation_defaults import GenerationDefaults

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")  # exactly one spelling per id


def sampling_params(
    request: GenerationRequest, defaults: GenerationDefaults, info: EngineInfo, limits: Limits, prompt_tokens: int
) -> tuple[SamplingParams, ...]:
    """The parameters of each of the `n` choices for one prompt. Without a seed, each call draws a random one.

    Raises `ApiError` (400) or `RequestError` for fields that are not valid for the prompt or the model.
    """
    max_tokens = _max_tokens(request, info.context_length, limits, prompt_tokens)
    stop_token_ids = tuple(dict.fromkeys(request.stop_token_ids or ()))
    if any(token_id >= info.vocab_size for token_id in stop_token_ids):
        raise ApiError(400, f"stop_token_ids must be below the vocabulary's size {info.vocab_size}", "stop_token_ids")
    logit_bias = _logit_bias(request.logit_bias or {}, info.vocab_size)
    top_k = defaults.top_k if request.top_k is None else request.top_k
    seed = secrets.randbits(63) if request.seed is None else request.seed
    return tuple(
        SamplingParams(
            max_tokens=max_tokens,
            temperature=defaults.temperature if request.temperature is None else request.temperature,
            top_p=defaults.top_p if request.top_p is None else request.top_p,
            top_k=min(max(top_k, 0), info.vocab_size),
            min_p=defaults.min_p if request.min_p is None else request.min_p,
            frequency_penalty=request.frequency_penalty or 0.0,
            presence_penalty=request.presence_penalty or 0.0,
            repetition_penalty=(
                defaults.repetition_penalty if request.repetition_penalty is None else request.repetition_penalty
            ),
            logit_bias=logit_bias,
            seed=seed,
            choice=choice,
            min_tokens=request.min_tokens or 0,
            stop_token_ids=stop_token_ids,
            ignore_eos=bool(request.ignore_eos),
            logprobs=request.alternatives,
            json_schema=request.json_schema,
            prompt_logprobs=request.alternatives if request.scores_prompt else None,
        )
        for choice in range(request.n or 1)
    )


def _logit_bias(given: Mapping[str, float], vocab_size: int) -> tuple[tuple[int, float], ...]:
    if not all(_TOKEN_ID.fullmatch(name) and int(name) < vocab_size for name in given):
        message = f"logit_bias: names must be token ids below {vocab_size} in decimal digits"
        raise ApiError(400, message, "logit_bias")
    return tuple((int(name), bias) for name, bias in given.items() if bias)


def _max_tokens(request: GenerationRequest, context_length: int, limits: Limits, prompt_tokens: int) -> int:
    name, asked = request.limit
    if limits.max_prompt_tokens is not None and prompt_tokens > limits.max_prompt_tokens:
        raise ApiError(
            400,
            f"the prompt has {prompt_tokens} tokens; this server allows at most {limits.max_prompt_tokens}",
            request.prompt_field,
            "prompt_too_long",
        )
    most = limits.max_answer_tokens
    if asked is not None and most is not None and asked > most:
        raise ApiError(400, f"{name} must be at most {most} on this server", name, "answer_too_long")
    room = context_length - prompt_tokens
    if room < (asked != 0):
        raise ApiError(
            400,
            f"the prompt has {prompt_tokens} tokens; with at least one token for the answer, this exceeds the context "
            f"length {context_length}",
            request.prompt_field,
            "context_length_exceeded",
        )
    if asked is None:
        return min(request.default_max_tokens or room, most or room, room)
    if asked > room:
        raise ApiError(
            400,
            f"{name} must be at most {room} for this prompt: it has {prompt_tokens} tokens, and the context length is "
            f"{context_length}",
            name,
            "context_length_exceeded",
        )
    return asked
