"""transformers' own continuous batching, as a competitor: its defaults, greedy, answers of exactly the wanted lengths.

Written for 5.17 to 5.23. Of attention it takes what it prefers of what is installed: FlashAttention 3 or 2, else SDPA.
It runs on a CPU too.
"""

import logging
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import transformers
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from panacea_lab.bench.measurement import BenchError

PATIENCE_S = 120.0
"""It counts as stuck if it finishes no request for this long."""


class PromptMix(Protocol):
    """Prompts, and how many tokens each is answered with."""

    @property
    def prompts(self) -> Sequence[Sequence[int]]: ...

    @property
    def answers(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class ContinuousBatching:
    """A running manager of transformers' continuous batching."""

    manager: Any
    settings: dict[str, Any]
    """What it chose for itself."""

    @classmethod
    @contextmanager
    def start(
        cls, network: PreTrainedModel, requests: int, prompt: int, answer: int
    ) -> Generator["ContinuousBatching"]:
        """Starts it for up to `requests` at once, with prompts and answers of up to `prompt` and `answer` tokens.

        Raises transformers' own errors.
        """
        hints = _workload_hints(requests, prompt, answer)
        make: Any = GenerationConfig
        generation = make(do_sample=False, max_new_tokens=answer, eos_token_id=-1, pad_token_id=0)

        def begin(stack: ExitStack, config: ContinuousBatchingConfig) -> Any:
            begun: Any = network
            return stack.enter_context(
                begun.continuous_batching_context_manager(
                    generation_config=generation, continuous_batching_config=config, workload_hints=hints, timeout=30
                )
            )

        own: dict[str, Any] = {}
        if network.device.type == "cpu":  # it would take most of the machine's memory
            own = {"num_blocks": 2 * requests * (1 + (prompt + answer) // 256), "max_batch_tokens": 512}
        with _quiet(), ExitStack() as stack:
            try:
                manager = begin(stack, ContinuousBatchingConfig(**own))
            except Exception:  # FlashAttention that is announced but cannot be had, without a network say
                if hasattr(ContinuousBatchingConfig, "auto_switch_to_flash"):
                    own["auto_switch_to_flash"] = False
                else:
                    network.set_attn_implementation("paged|sdpa")
                manager = begin(stack, ContinuousBatchingConfig(**own))
            own_config: Any = network.config
            chosen = manager.continuous_batching_config
            settings = {
                "version": transformers.__version__,
                "attention": own_config._attn_implementation,
                **{
                    name: getattr(chosen, name, None)
                    for name in ("use_cuda_graph", "use_async_batching", "max_batch_tokens", "num_blocks")
                },
            }
            yield cls(manager, settings)

    def answer(self, mix: PromptMix) -> list[int]:
        """Answers all of `mix`; returns how many tokens it generated for each prompt. Raises `BenchError`."""
        ids: list[str] = []
        for prompt, count in zip(mix.prompts, mix.answers, strict=True):
            request_id: str | None = self.manager.add_request(list(prompt), max_new_tokens=count)
            if request_id is None:
                raise BenchError(f"it takes no requests: {self._fault()}")
            ids.append(request_id)
        generated: dict[str, int] = {}
        while len(generated) < len(ids):
            result = self.manager.get_result(timeout=PATIENCE_S)
            if result is None:
                raise BenchError(f"it stopped before all were answered: {self._fault()}")
            if result.error is not None:
                raise BenchError(f"a request failed: {result.error}")
            if result.is_finished():
                generated[result.request_id] = len(result.generated_tokens)
        return [generated[request_id] for request_id in ids]

    def _fault(self) -> str:
        status = getattr(self.manager, "background_thread_status", None)
        return str(getattr(status, "fatal_error", None) or "it says no reason")


def _workload_hints(requests: int, prompt: int, answer: int) -> object:
    """What `generate_batch` would tell the manager of the work to come."""
    from transformers.generation.continuous_batching.utils import WorkloadHints  # noqa: PLC0415

    return WorkloadHints(max_prompt_length=prompt, max_generated_length=answer, num_requests=requests)


@contextmanager
def _quiet() -> Generator[None]:
    """Its advice on attention and its account of every error stay out of the table; errors come as exceptions."""
    logger = logging.getLogger("ContinuousBatchingLogger")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
