"""A sweep: a model answers the same prompts at every preference."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AutoTokenizer

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import CheckpointError, ConfigError, RequestFailedError, first_line
from panacea.model.loader import load_model
from panacea.preference import Preference
from panacea_train.data.encoding import ConversationEncoder
from panacea_train.evaluation.kept_replies import KeptReplies, KeptReply, reply_keys
from panacea_train.prompts import Prompt


@dataclass(frozen=True)
class SweepSettings:
    """How each prompt is answered, at each preference.

    Raises `ConfigError` if a number is out of range.
    """

    temperatures: tuple[float, ...] = (0.7,)
    """0 is greedy: one answer per prompt, whatever `samples` says."""
    samples: int = 1
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperatures:
            raise ConfigError("--temperature is missing: give at least one")
        for index, temperature in enumerate(self.temperatures):
            if not 0 <= temperature <= MAX_TEMPERATURE:
                raise ConfigError(f"--temperature must be between 0 and {MAX_TEMPERATURE:g}")
            if temperature in self.temperatures[:index]:
                raise ConfigError(f"--temperature {temperature:g} is there twice")
        if self.samples < 1 or self.max_tokens < 1:
            raise ConfigError("--samples and --max-tokens must be at least 1")

    def samples_at(self, temperature: float) -> int:
        return self.samples if temperature else 1


MAX_TEMPERATURE = 2.0
"""The API's."""


@dataclass(frozen=True)
class GeneratedAnswer:
    """One answer, with the point, prompt and sample that it belongs to."""

    temperature: float
    point: int
    prompt: int
    sample: int
    text: str
    """Without special tokens, as in the server's answers."""
    tokens: int
    cut_off: bool


def sweep(
    config: EngineConfig,
    prompts: Sequence[Prompt],
    preferences: Sequence[Preference],
    settings: SweepSettings,
    kept: KeptReplies | None = None,
) -> list[GeneratedAnswer]:
    """Answers by temperature, point, prompt and sample, in this order. A progress bar shows how far it is.

    All of them go through one engine in one stream of batches. The noise of a prompt's sample is the same at every
    point, so that points differ by their preference alone. A prompt is what a server makes of its messages, and answers
    end with the tokens that end them there. What `kept` has is not asked for again, and it gets the rest.

    Raises `ConfigError` for a prompt that the model cannot take, by its line and before anything is asked, and
    `RequestFailedError` for an answer that cannot be computed.
    """
    tokenizer = _tokenizer(config.model)
    model = load_model(config)
    engine = Engine.over(model, config)
    encoder = ConversationEncoder(tokenizer, engine.info.eos_token_ids)
    encoded = [_encoded(encoder, prompt, number) for number, prompt in enumerate(prompts, 1)]
    _check_lengths(prompts, encoded, settings.max_tokens, engine.info.context_length)
    places = [
        (temperature, point, prompt, sample)
        for temperature in settings.temperatures
        for point in range(len(preferences))
        for prompt in range(len(prompts))
        for sample in range(settings.samples_at(temperature))
    ]
    requests = [
        Request(
            encoded[prompt],
            preferences[point],
            SamplingParams(
                settings.max_tokens, temperature=temperature, seed=settings.seed + prompt * settings.samples + sample
            ),
        )
        for temperature, point, prompt, sample in places
    ]
    kept = KeptReplies() if kept is None else kept
    keys = reply_keys(model, requests)
    missing = [index for index, key in enumerate(keys) if key not in kept]
    generated = 0
    with tqdm(
        total=len(requests), initial=len(requests) - len(missing), desc="Answering", unit="answer", leave=False
    ) as bar:

        def completed(number: int, answer: Completion) -> None:
            nonlocal generated
            kept.keep(keys[missing[number]], KeptReply(answer.text_ids, cut_off=answer.finish_reason == "length"))
            generated += len(answer.text_ids)
            bar.set_postfix_str(f"{generated:,} tokens", refresh=False)
            bar.update()

        try:
            engine.generate([requests[index] for index in missing], completed)
        except RequestFailedError as error:
            if error.index is None:
                raise
            _, point, prompt, _ = places[missing[error.index]]
            weights = ", ".join(f"{weight:g}" for weight in preferences[point])
            where = prompts[prompt].place(prompt + 1)
            raise RequestFailedError(f"the answer to {where} at preference {weights} failed: {error}") from None
    replies = [kept[key] for key in keys]
    texts: list[str] = tokenizer.batch_decode(
        [reply.token_ids for reply in replies], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return [
        GeneratedAnswer(*place, text, len(reply.token_ids), reply.cut_off)
        for place, text, reply in zip(places, texts, replies, strict=True)
    ]


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    # Whatever is wrong with a folder, transformers raises almost any exception for it.
    except Exception as error:
        raise CheckpointError(f"no tokenizer can be read from {folder}: {first_line(error)}") from None


def _encoded(encoder: ConversationEncoder, prompt: Prompt, number: int) -> list[int]:
    try:
        return encoder.prompt(prompt.messages).ids
    except ValueError as error:
        raise ConfigError(f"{prompt.place(number)} cannot be used: {error}") from None


def _check_lengths(
    prompts: Sequence[Prompt], encoded: Sequence[Sequence[int]], max_tokens: int, context_length: int
) -> None:
    too_long = [index for index, ids in enumerate(encoded) if len(ids) + max_tokens > context_length]
    if not too_long:
        return
    index = too_long[0]
    more = f" (so do {len(too_long) - 1:,} more)" if too_long[1:] else ""
    raise ConfigError(
        f"{prompts[index].place(index + 1)} has {len(encoded[index]):,} tokens, which with --max-tokens {max_tokens} "
        f"exceed the model's context of {context_length:,}{more}: shorten it, or lower --max-tokens"
    )
