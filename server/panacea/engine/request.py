"""One sequence being generated, and what it holds while it runs. No tensors."""

from dataclasses import dataclass, field

from panacea.engine.sampling_params import SamplingParams
from panacea.preference import Preference


@dataclass(eq=False)
class Request:
    """A request's whole life. The scheduler alone changes `computed`, `blocks` and `slot`."""

    request_id: str
    prompt_ids: list[int]
    preference: Preference | None
    """None is the bare base model."""
    params: SamplingParams
    output_ids: list[int] = field(default_factory=list[int])
    computed: int = 0
    """Tokens whose keys and values are in the cache."""
    blocks: list[int] = field(default_factory=list[int])
    slot: int | None = None
    """Row of the preference table while running; row 0, the base, belongs to all."""

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def most_tokens(self) -> int:
        """Tokens whose keys and values the cache must be able to hold at the very end."""
        return len(self.prompt_ids) + self.params.max_tokens

    def tokens(self, start: int, count: int) -> list[int]:
        """Tokens [start, start + count) of prompt and answer."""
        prompt = len(self.prompt_ids)
        if start >= prompt:
            return self.output_ids[start - prompt : start - prompt + count]
        return [*self.prompt_ids[start : start + count], *self.output_ids[: max(0, start + count - prompt)]]
