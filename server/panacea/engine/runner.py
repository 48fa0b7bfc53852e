"""Runs a step's work through the model. Owns the tensors: KV cache, slot tables, CUDA graphs."""

import logging
from collections import abc
from contextlib import nullcontext

import torch
from tqdm import tqdm

from panacea.config import EngineConfig
from panacea.engine.adjustments import Adjustments
from panacea.engine.graphs import CudaGraphRecorder, DecodeGraphs, Recorder, StepInputs
from panacea.engine.kv_cache import KVCache, LayerShape, block_bytes, probe_layers
from panacea.engine.prompt_scores import PromptScores, ScoringStep, wanted_rows
from panacea.engine.sampler import PendingTokens, choose
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.sampling_row import SamplingRow
from panacea.engine.scheduler import Work
from panacea.engine.sequence import Sequence
from panacea.engine.slot_tables import SlotTables
from panacea.engine.transfer import to_device
from panacea.errors import ConfigError
from panacea.model.loader import LoadedModel
from panacea_kernels import PagedLayout, Span, batch_invariant

logger = logging.getLogger(__name__)

CPU_CACHE_BYTES = 1 << 30
WARM_UP_ROWS = (16, 32, 64, 128, 256)
"""Numbers of rows to warm up. Steps of different sizes use different tiles, and each tile is compiled once."""
USUAL_SAMPLING = SamplingRow(SamplingParams(max_tokens=1, top_k=20, top_p=0.9), 0, ())
LARGEST_SAMPLING = SamplingRow(
    SamplingParams(max_tokens=1, top_k=1000, top_p=0.9, min_p=0.1, presence_penalty=1, logprobs=20), 0, ()
)
"""The sampling that takes the most memory of all that a request may ask for."""


class Runner:
    """A loaded model and its KV cache. Raises `ConfigError` if the device's memory cannot hold both."""

    def __init__(self, model: LoadedModel, config: EngineConfig, recorder: Recorder | None = None) -> None:
        """`recorder` records decode steps. None means CUDA graphs on CUDA, and no recording elsewhere."""
        self.model = model
        self.steps_ahead = int(model.device.type == "cuda")
        self._deterministic = config.deterministic
        self._scores = PromptScores()
        self._score_rows = config.max_batch  # scoring prompts takes no more memory for logits than sampling does
        shapes = probe_layers(model)
        self.num_blocks = _num_blocks(config, model, shapes)
        if (held := self.num_blocks * config.block_size) < model.context_length:
            logger.warning(
                "the context is %d tokens of the model's %d, because the KV cache holds no more: raise kv_cache_gib",
                held,
                model.context_length,
            )
        try:
            self.cache = KVCache(shapes, self.num_blocks, config.block_size, model.device, model.dtype)
            most_blocks = min(self.num_blocks, -(-model.context_length // config.block_size))
            self._tables = SlotTables(model, config.max_batch + 1, most_blocks, self.cache.scratch_block)
            if recorder is None and model.device.type == "cuda" and model.decoder.recordable:
                recorder = CudaGraphRecorder()
            self._graphs = None
            if recorder is not None:
                self._graphs = DecodeGraphs(self._decode, config.max_batch, model.device, recorder)
            if model.device.type == "cuda":
                self.warm_up(config.max_step_tokens)
        except torch.OutOfMemoryError:
            raise ConfigError("the GPU's memory does not suffice: give a smaller kv_cache_gib or max_batch") from None

    @torch.inference_mode()
    def warm_up(self, most_rows: int) -> None:
        """Runs made-up prompts of up to `most_rows` tokens, so that no request waits while kernels are compiled."""
        room = min(most_rows, self.model.context_length - 1, self._tables.blocks.shape[1] * self.cache.block_size)
        for rows in tqdm(
            [*(rows for rows in WARM_UP_ROWS if rows < room), room], desc="Kernels", unit="size", leave=False
        ):
            inputs, layout = self._inputs([0] * rows, [Span(0, 0, rows)])
            logits = self._logits(self._states(inputs, layout, to_device([rows - 1], torch.int64, self.model.device)))
            for sampling in (USUAL_SAMPLING, LARGEST_SAMPLING):
                choose(logits, [sampling], self._tables.adjustments).result()

    @torch.inference_mode()
    def launch(self, work: abc.Sequence[Work]) -> PendingTokens | ScoringStep:
        """Starts one forward over `work` (single tokens first), and samples a token for each item that wants one.

        If it raises, the tables forget the requests in `work`. A second launch therefore begins as the first did: keys
        and values are written to the same places, and the counts for penalties come from the tokens on the host.
        """
        try:
            return self._launch(work)
        except BaseException:
            self._tables.forget(work)
            raise

    @torch.inference_mode()
    def is_usable_after(self, fault: BaseException) -> bool:
        """Whether a made-up prompt of one token can be computed. Never after a `torch.AcceleratorError`, because the
        results of the steps before it may be wrong too."""
        if isinstance(fault, torch.AcceleratorError):
            return False
        try:
            inputs, layout = self._inputs([0], [Span(0, 0, 1)])
            logits = self._logits(self._states(inputs, layout, None))
            choose(logits, [USUAL_SAMPLING], self._tables.adjustments).result()
        except Exception:
            logger.exception("the model cannot compute a single token any more")
            return False
        return True

    def _launch(self, work: abc.Sequence[Work]) -> PendingTokens | ScoringStep:
        logits = self.forward(work)
        sampling = [item.sequence for item in work if item.samples]
        rows = [self._sampling_row(sequence) for sequence in sampling]
        tokens = choose(logits[: len(sampling)], rows, self._tables.adjustments)
        if self.steps_ahead and sampling:
            slots = to_device([sequence.slot for sequence in sampling], torch.int64, self.model.device)
            self._tables.last_tokens[slots] = tokens.token_ids
        prompts = {
            row: self._scores.take(sequence)
            for row, sequence in enumerate(sampling)
            if sequence.request.params.prompt_logprobs is not None and sequence.num_outputs == 0
        }
        return ScoringStep(tokens, prompts) if prompts else tokens

    @torch.inference_mode()
    def forward(self, work: abc.Sequence[Work]) -> torch.Tensor:
        """The next-token logits (items that sample, vocabulary); one meaningless row if no item samples.

        Also scores the prompt tokens in `work` whose log probabilities are wanted. Their logits are computed for
        `_score_rows` rows at a time.
        """
        self._tables.update(work)
        token_ids = [token for item in work for token in item.sequence.tokens(item.start, item.count)]
        spans = [Span(item.sequence.slot or 0, item.start, item.count) for item in work]
        ends, wanted = _ends(work), wanted_rows(work)
        states = self._states_of(token_ids, spans, [*ends, *(row for each in wanted for row in each.rows)])
        if wanted:
            parts = torch.split(states[len(ends) :], self._score_rows)
            self._scores.add(wanted, map(self._logits, parts), self.model.device)
        return self._logits(states[: max(1, len(ends))])

    def _states_of(
        self, token_ids: abc.Sequence[int], spans: abc.Sequence[Span], rows: abc.Sequence[int]
    ) -> torch.Tensor:
        """The final states (rows, hidden) of some rows of a step; one meaningless row if `rows` is empty."""
        device = self.model.device
        every = list(rows) == list(range(len(token_ids)))
        is_decode = len(spans) == len(token_ids)
        if every and is_decode and self._graphs is not None and self._graphs.covers(len(rows)):
            packed = [token_ids, [span.start for span in spans], [span.slot for span in spans]]
            return self._graphs.replay(to_device(packed, torch.int32, device))
        inputs, layout = self._inputs(token_ids, spans)
        return self._states(inputs, layout, None if every else to_device(rows or [0], torch.int64, device))

    def _inputs(self, token_ids: abc.Sequence[int], spans: abc.Sequence[Span]) -> tuple[StepInputs, PagedLayout]:
        layout = PagedLayout.build(spans, self._tables.blocks, self.cache.block_size, decode=not self._deterministic)
        return StepInputs(to_device(token_ids, torch.int32, self.model.device), layout.positions, layout.slots), layout

    def _decode(self, inputs: StepInputs) -> torch.Tensor:
        """The states of a decode step. All inputs are on the device; the host knows only their number."""
        layout = PagedLayout.of_decode(
            inputs.positions, inputs.slots, self._tables.blocks, self.cache.block_size, decode=not self._deterministic
        )
        with torch.inference_mode():
            return self._states(inputs, layout, None)

    def _states(self, inputs: StepInputs, layout: PagedLayout, rows: torch.Tensor | None) -> torch.Tensor:
        self.model.steering.slots = inputs.slots
        with batch_invariant() if self._deterministic else nullcontext():
            return self.model.decoder.states(inputs.token_ids(self._tables), self.cache.step(layout), rows)

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        with batch_invariant() if self._deterministic else nullcontext():
            return self.model.decoder.logits(states)

    def _sampling_row(self, sequence: Sequence) -> SamplingRow:
        params, position = sequence.request.params, sequence.num_outputs
        eos = () if params.ignore_eos else self.model.eos_token_ids
        banned = (*eos, *params.stop_token_ids) if position < params.min_tokens else ()
        allowed = None
        if sequence.grammar is not None:
            allowed = sequence.grammar.mask()
            if sequence.grammar.has_ended:
                banned = ()  # the mask allows only the end of sequence
        return SamplingRow(params, position, banned, sequence.slot or 0, allowed)


def _ends(work: abc.Sequence[Work]) -> list[int]:
    """The rows of a step that sample: the last row of each item that samples."""
    ends: list[int] = []
    rows = 0
    for item in work:
        rows += item.count
        if item.samples:
            ends.append(rows - 1)
    return ends


def _num_blocks(config: EngineConfig, model: LoadedModel, shapes: abc.Sequence[LayerShape]) -> int:
    """The configured number of blocks. None: as many as the memory limit allows and `max_batch` full contexts use."""
    if config.num_blocks is not None:
        return config.num_blocks
    size_bytes = block_bytes(shapes, config.block_size, model.dtype)
    limit = config.kv_cache_bytes
    if limit is None:
        limit = CPU_CACHE_BYTES if model.device.type == "cpu" else _free_bytes(config, model, shapes)
    useful = config.max_batch * -(-model.context_length // config.block_size)
    affordable = limit // size_bytes - 1  # the scratch block
    if affordable < 1:
        raise ConfigError(
            f"a KV cache of {max(limit, 0)} bytes cannot hold one block of {size_bytes} bytes and the scratch block: "
            f"give a larger cache or a smaller block_size"
        )
    return min(useful, affordable)


def _free_bytes(config: EngineConfig, model: LoadedModel, shapes: abc.Sequence[LayerShape]) -> int:
    """Bytes that `gpu_memory_share` leaves for the cache after the weights and the activations of the largest step."""
    rows = min(config.max_step_tokens, model.context_length - 1)
    cache = KVCache(shapes, 1, config.block_size, model.device, model.dtype)
    blocks = torch.zeros(1, -(-rows // config.block_size), dtype=torch.int32, device=model.device)
    layout = PagedLayout.build([Span(0, 0, rows)], blocks, config.block_size)
    model.steering.slots = layout.slots
    torch.cuda.reset_peak_memory_stats()
    try:
        with torch.inference_mode():
            last = torch.arange(max(0, rows - config.max_batch), rows, device=model.device)
            states = model.decoder.states(torch.zeros_like(layout.positions), cache.step(layout), last)
            logits = model.decoder.logits(states)
            adjustments = Adjustments(config.max_batch + 1, model.vocab_size, model.device)
            choose(logits, [LARGEST_SAMPLING] * len(last), adjustments).result()
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"the model fits the GPU, but a step of {rows} tokens does not fit beside it: give a smaller "
            f"max_step_tokens, dtype or model"
        ) from None
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    others = total - free - torch.cuda.memory_reserved()  # memory of the driver and of other programs
    return int(total * config.gpu_memory_share) - others - peak
