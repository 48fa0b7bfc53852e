"""The demo's base model: a tiny Llama that learns the world's conversations from scratch."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from panacea_lab.demo.demo_chat import END_ID, PAD_ID, EncodedConversation, SampleStream
from panacea_lab.demo.job_stages import StageProgress
from panacea_lab.world.world_texts import World


@dataclass(frozen=True)
class TrainingPhase:
    """A part of the training, with a warm-up and a cosine of its own."""

    tokens: int
    """Tokens of training text, padding not counted."""
    learning_rate: float
    strange_share: float = 0.0
    """Share of questions full of strange words. Without them the model mistook an unseen word for a known word with the
    same beginning ("weekend" for "weed"). From the start, they would slow down all other learning."""


@dataclass(frozen=True)
class BaseSettings:
    """Size and training of the base model."""

    vocab_size: int = 2048
    context: int = 1024
    hidden_size: int = 192
    intermediate_size: int = 512
    layers: int = 4
    heads: int = 6
    phases: tuple[TrainingPhase, ...] = (
        TrainingPhase(9_000_000, 3e-3),
        TrainingPhase(2_500_000, 1.5e-3, strange_share=0.5),
        TrainingPhase(2_500_000, 2e-3, strange_share=0.6),
    )
    batch_tokens: int = 1152
    """Tokens of one step, padding counted: 18 conversations of usual length. Twice as many needed about a fifth more
    text to reach the same loss: so small a model gains more from more steps than from surer ones."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup_steps: int = 100

    @property
    def tokens(self) -> int:
        """Tokens of all phases."""
        return sum(phase.tokens for phase in self.phases)


@dataclass(frozen=True)
class ConversationBatch:
    """Right-padded conversations. With causal attention no token sees the padding after it, so there is no mask."""

    ids: Tensor
    """(conversations, length) int64"""
    learned: Tensor
    """(conversations, length) bool: positions whose token is to be predicted from the ones before it."""
    tokens: int


def build_base(settings: BaseSettings) -> LlamaForCausalLM:
    """An untrained model. Embeddings are tied: they are a fifth of the parameters as it is."""
    config = LlamaConfig(
        vocab_size=settings.vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
    )
    return LlamaForCausalLM(config)


def train_base(
    world: World,
    tokenizer: PreTrainedTokenizerFast,
    settings: BaseSettings,
    seed: int,
    report: StageProgress,
) -> LlamaForCausalLM:
    """Trains the base model in float32. `report` gets the share done and the latest figures after each step."""
    torch.manual_seed(seed)
    model = build_base(settings)
    before = 0
    for index, phase in enumerate(settings.phases):

        def report_phase(
            done: float, figures: dict[str, float], before: int = before, phase: TrainingPhase = phase
        ) -> None:
            report((before + done * phase.tokens) / settings.tokens, figures)

        stream = SampleStream(world, tokenizer, seed + index, settings.context, phase.strange_share)
        batches = draw_batches(stream, settings.batch_tokens, seed + index)
        _run_phase(model, batches, settings, phase, report_phase)
        before += phase.tokens
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _run_phase(
    model: LlamaForCausalLM,
    batches: Iterator[ConversationBatch],
    settings: BaseSettings,
    phase: TrainingPhase,
    report: StageProgress,
) -> None:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=phase.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    done = 0
    average = math.log(settings.vocab_size)
    model.train()
    for step, batch in enumerate(batches):
        share = done / phase.tokens
        if share >= 1:
            break
        warmup = min(1.0, (step + 1) / settings.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = phase.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * share))
        loss = answer_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done += batch.tokens
        average += (float(loss.detach()) - average) * max(0.02, 1 / (step + 1))
        report(min(1.0, done / phase.tokens), {"step": step + 1, "loss": average})


def answer_loss(model: LlamaForCausalLM, batch: ConversationBatch) -> Tensor:
    """Mean cross-entropy of the answers' tokens. Only they pass the output layer, a quarter of the model's work."""
    learned = batch.learned[:, 1:]
    hidden = model.model(input_ids=batch.ids).last_hidden_state[:, :-1][learned]
    return F.cross_entropy(model.lm_head(hidden), batch.ids[:, 1:][learned])


def draw_batches(stream: SampleStream, batch_tokens: int, seed: int) -> Iterator[ConversationBatch]:
    """Batches of conversations of like length, in random order: hardly any padding."""
    rng = random.Random(seed)
    while True:
        samples = sorted(stream.draw(4000), key=lambda sample: len(sample.ids))
        groups: list[list[EncodedConversation]] = [[]]
        for sample in samples:
            if (len(groups[-1]) + 1) * len(sample.ids) > batch_tokens and groups[-1]:
                groups.append([])
            groups[-1].append(sample)
        rng.shuffle(groups)
        yield from map(collate, groups)


def collate(samples: Sequence[EncodedConversation]) -> ConversationBatch:
    width = max(len(sample.ids) for sample in samples)
    ids = torch.zeros(len(samples), width, dtype=torch.int64)
    learned = torch.zeros(len(samples), width, dtype=torch.bool)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        learned[row, : len(sample.ids)] = torch.tensor(sample.learned)
    return ConversationBatch(ids, learned, sum(len(sample.ids) for sample in samples))


def save_base(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes an ordinary Hugging Face folder in bfloat16, with the sampling that suits the model as its default."""
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=END_ID,
        pad_token_id=PAD_ID,
        do_sample=True,
        temperature=0.7,
        top_p=1.0,
        top_k=0,
    )
    nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        # safetensors gives its file to the owner alone, but a model is there to be served.
        path.chmod(0o644)
