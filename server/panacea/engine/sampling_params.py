"""The sampling parameters of one request. A plain dataclass, because the in-process engine needs no msgspec."""

import math
from dataclasses import dataclass

from panacea.errors import RequestError

MAX_LOGPROBS = 20
"""Most alternatives per position that a request may ask for (OpenAI's limit)."""
MAX_BIASES = 1024
"""Most tokens in one request's `logit_bias`."""
MAX_BIAS = 100
MAX_PENALTY = 2
"""Largest absolute value of `frequency_penalty` and `presence_penalty` (OpenAI's limit)."""
REPETITION_PENALTIES = (0.01, 100.0)
"""Smallest and largest `repetition_penalty`."""
MAX_SCHEMA_CHARS = 1 << 16
"""Most characters of a JSON schema that an answer must follow."""


@dataclass(frozen=True)
class SamplingParams:
    """Sampling of one request.

    Noise is a function of (`seed`, `choice`, output position) alone. A request therefore gets the same tokens alone and
    in any batch. The constructor raises `RequestError` with the field's name if a value is not valid.
    """

    max_tokens: int
    """Most tokens to generate: at least 1, or 0 to only score the prompt (`prompt_logprobs`)."""
    temperature: float = 1.0
    """0 is greedy: the most likely token, and the lowest id on a tie."""
    top_p: float = 1.0
    """Keep the most likely tokens until their summed probability reaches this; in (0, 1]."""
    top_k: int = 0
    """Keep at most this many tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens whose probability is at least this fraction of the most likely token's; 0 keeps all."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time that the answer contains it; -2 to 2."""
    presence_penalty: float = 0.0
    """Subtracted from a token's logit if the answer contains it; -2 to 2."""
    repetition_penalty: float = 1.0
    """For tokens that prompt or answer contain: divides logits above 0 and multiplies all others; 0.01 to 100."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids and the numbers that are added to their logits (-100 to 100). No id occurs twice."""
    seed: int = 0
    """Any 64-bit integer. Callers that want fresh noise draw one."""
    choice: int = 0
    """Index of this answer among the request's `n` answers. Answers of the same seed differ by it."""
    min_tokens: int = 0
    """Number of tokens before which no end-of-sequence or stop token is allowed."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the answer, besides the model's own end-of-sequence tokens."""
    ignore_eos: bool = False
    """Continue after an end-of-sequence token. Benchmarks use this for answers of equal length."""
    logprobs: int | None = None
    """Return the log probability of each token and of this many alternatives (0 to 20). None returns none."""
    prompt_logprobs: int | None = None
    """The same for each token of the prompt but the first."""

    json_schema: str | None = None
    """JSON schema, as JSON text, that the answer follows. The answer ends where the schema allows nothing more."""

    @property
    def penalises(self) -> bool:
        """Whether a penalty depends on the tokens of prompt or answer."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0

    @property
    def adjusts(self) -> bool:
        """Whether tokens are drawn from adjusted logits instead of the model's own."""
        return self.min_p > 0 or bool(self.logit_bias) or self.penalises

    def __post_init__(self) -> None:
        least, most = REPETITION_PENALTIES
        bias = [value for _, value in self.logit_bias]
        for name, fits, rule in (
            ("max_tokens", self.max_tokens >= (self.prompt_logprobs is None), "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "a finite number, not negative"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
            ("frequency_penalty", abs(self.frequency_penalty) <= MAX_PENALTY, f"-{MAX_PENALTY} to {MAX_PENALTY}"),
            ("presence_penalty", abs(self.presence_penalty) <= MAX_PENALTY, f"-{MAX_PENALTY} to {MAX_PENALTY}"),
            ("repetition_penalty", least <= self.repetition_penalty <= most, f"{least:g} to {most:g}"),
            ("logit_bias", len(bias) <= MAX_BIASES, f"at most {MAX_BIASES} tokens"),
            ("logit_bias", all(abs(value) <= MAX_BIAS for value in bias), f"-{MAX_BIAS} to {MAX_BIAS} for each token"),
            ("logit_bias", len(dict(self.logit_bias)) == len(bias), "one number for each token"),
            ("seed", -(2**63) <= self.seed < 2**64, "a 64-bit integer"),
            ("choice", self.choice >= 0, "at least 0"),
            ("min_tokens", 0 <= self.min_tokens <= self.max_tokens, "between 0 and max_tokens"),
            ("logprobs", 0 <= (self.logprobs or 0) <= MAX_LOGPROBS, f"0 to {MAX_LOGPROBS}"),
            (
                "response_format",
                len(self.json_schema or "") <= MAX_SCHEMA_CHARS,
                f"a JSON schema of at most {MAX_SCHEMA_CHARS} characters",
            ),
            ("prompt_logprobs", 0 <= (self.prompt_logprobs or 0) <= MAX_LOGPROBS, f"0 to {MAX_LOGPROBS}"),
        ):
            if not fits:
                raise RequestError(f"{name} must be {rule}", name)
