"""Rewards that a sequence classification model of transformers computes: reward models and text classifiers."""

import inspect
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from panacea.config import Device
from panacea.errors import first_line
from panacea.model.hub import local_folder
from panacea_train.prompts import Prompt
from panacea_train.rewards.model_input import InputEncoder, ModelInput
from panacea_train.rewards.reward import RewardError, ScoreProgress, finite
from panacea_train.transformers_errors import loading

logger = logging.getLogger(__name__)

ROWS = 64
"""Sequences in one forward."""
TOKENS = 16_384
"""Tokens in one forward, padding included."""

_NO_LIMIT = 10**9
"""Tokenizers without a limit have 10^30."""


class Classifier:
    """The score of an answer is one output of the model, as its log-odds:

        a single output, or a regression                the output itself
        several labels, each true or not                the label's logit, log p / (1 - p) of its sigmoid
        several labels, one of them true                logit_i - log sum_{j != i} exp(logit_j), the same of its softmax

    A reward model's single output is such a number too: the difference of two is the log-odds that one answer is
    preferred (Bradley-Terry). Unlike a probability, log-odds keep their digits close to 0 and 1. Unlike one of several
    logits, they have a meaning alone: adding a number to all logits does not change any probability. The model's config
    says which of the three cases holds, as in transformers' own text classification pipeline.
    """

    def __init__(self, name: str, network: PreTrainedModel, encoder: InputEncoder, output: int, device: str) -> None:
        """`name` is for errors; `output` is the output to read. `network` stays on the CPU until it scores."""
        self._name = name
        self._network = network
        self._encoder = encoder
        self._output = output
        self._device = device
        self._takes_types = "token_type_ids" in inspect.signature(network.forward).parameters
        self._threads = torch.get_num_threads()

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: ScoreProgress) -> list[float]:
        """Raises `RewardError` if the model cannot read a conversation, or fails.

        Warns if the beginning of a conversation was cut off.
        """
        inputs = [self._encoder.encode(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        if any(one.is_cut for one in inputs):
            logger.warning(
                "%s reads %d tokens at most: the beginning of %d of %d conversations was left out",
                self._name,
                max(len(one.ids) for one in inputs if one.is_cut),
                sum(one.is_cut for one in inputs),
                len(inputs),
            )
        scores = [0.0] * len(inputs)
        with self._ready():
            for chunk in _chunks(inputs):
                values = self._forward([inputs[index] for index in chunk])
                for index, value in zip(chunk, values, strict=True):
                    scores[index] = finite(value, self._name, prompts[index], answers[index])
                report(len(chunk))
        return scores

    @contextmanager
    def _ready(self) -> Generator[None]:
        """Moves the network to its device and turns its failures into `RewardError`; frees the GPU afterwards."""
        threads = torch.get_num_threads()
        # An engine may have set fewer threads for a smaller model since.
        torch.set_num_threads(self._threads)
        try:
            self._network.to(self._device)  # type: ignore[arg-type]  # transformers wraps `to` without its types
            with torch.inference_mode():
                yield
        except (RuntimeError, ValueError, IndexError) as error:  # a GPU's memory that does not suffice is one of them
            raise RewardError(f"{self._name} cannot be computed: {first_line(error)}") from None
        finally:
            torch.set_num_threads(threads)
            if self._device != "cpu":
                self._network.to("cpu")  # type: ignore[arg-type]
                torch.cuda.empty_cache()

    def _forward(self, rows: Sequence[ModelInput]) -> list[float]:
        lengths = torch.tensor([len(row.ids) for row in rows])
        config = self._network.config.get_text_config()
        pad = config.pad_token_id
        if pad is None:
            # Decoders read the last token that is not padding. Any token that no row ends with can mark the padding.
            last = {row.ids[-1] for row in rows}
            pad = next(token for token in count() if token not in last)
        batch = {
            "input_ids": _padded([row.ids for row in rows], pad),
            "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
        }
        if self._takes_types and rows[0].types is not None:
            batch["token_type_ids"] = _padded([row.types or [] for row in rows], 0)
        own, config.pad_token_id = config.pad_token_id, pad
        try:
            logits: Tensor = self._network(**{name: part.to(self._device) for name, part in batch.items()}).logits
        finally:
            config.pad_token_id = own
        return self._log_odds(logits.double().cpu()).tolist()

    def _log_odds(self, logits: Tensor) -> Tensor:
        """(rows, outputs) -> (rows,)"""
        config = self._network.config
        chosen = logits[:, self._output]
        if logits.shape[1] == 1 or config.problem_type in {"regression", "multi_label_classification"}:
            return chosen
        others = torch.arange(logits.shape[1]) != self._output
        return chosen - logits[:, others].logsumexp(1)


def read_classifier(name: str, place: str, device: Device = "auto", *, answer_alone: bool) -> Classifier:
    """The model at `place`, a folder or hub id. #LABEL selects one of several outputs, by a label's name or index.

    It computes in float32 on a CPU, and in its weights' dtype on a GPU. No code of the model's repository is run.
    Raises `RewardError` if it is not a trained classifier, `ConfigError` if a hub id cannot be downloaded.
    """
    where, _, label = place.rpartition("#") if "#" in place else (place, "", "")
    if device == "cuda" and not torch.cuda.is_available():
        raise RewardError(f"{name} cannot run on CUDA: torch finds no CUDA device; choose another device")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    folder = local_folder(where)
    if (folder / "adapter_config.json").is_file():
        raise RewardError(f"{name} is an adapter: merge it into its base model first (peft's merge_and_unload)")
    if not (folder / "config.json").is_file():
        raise RewardError(f"{name} is not a model: config.json is missing")
    with loading(name, RewardError):
        network = _load_network(name, folder, torch.float32 if chosen == "cpu" else "auto")
        tokenizer = _load_tokenizer(name, folder)
    output = _find_output(name, network, label)
    encoder = InputEncoder(name, tokenizer, _most_tokens(network, tokenizer), answer_alone=answer_alone)
    return Classifier(name, network, encoder, output, chosen)


def _load_network(name: str, folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    loaded: Any = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # so that the tensor can be named
        output_loading_info=True,
    )
    network: PreTrainedModel
    network, report = loaded
    # transformers initialises missing tensors at random, which would make every score random.
    if report["missing_keys"]:
        raise RewardError(f"{name} is not a trained classifier: the tensor {min(report['missing_keys'])} is missing")
    for tensor, stored, expected in sorted(report["mismatched_keys"]):
        raise RewardError(f"{name} is damaged: its {tensor} is {tuple(stored)}, its config says {tuple(expected)}")
    network.train(mode=False)
    network.requires_grad_(requires_grad=False)
    return network


def _load_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    # Without these files transformers makes up some tokenizers, for which every word is unknown.
    files = {"tokenizer.json", *type(tokenizer).vocab_files_names.values()}
    if not any((folder / file).is_file() for file in files):
        raise RewardError(f"{name} has no tokenizer: none of the files {', '.join(sorted(files))}")
    if not tokenizer.is_fast:
        raise RewardError(f"{name} has a tokenizer without tokenizer.json, which is not supported")
    return tokenizer


def _find_output(name: str, network: PreTrainedModel, label: str) -> int:
    # transformers makes up one label for each output if a config has none
    labels: dict[Any, str] = {int(index): text for index, text in (network.config.id2label or {}).items()}
    names = [labels[index] for index in sorted(labels)]
    if not label and len(names) == 1:
        return 0
    if label in names:
        return names.index(label)
    if label.isascii() and label.isdigit() and int(label) < len(names):
        return int(label)
    listed = ", ".join(names)
    if not label:
        raise RewardError(f"{name} has {len(names)} outputs: append #LABEL, one of {listed}")
    raise RewardError(f"{name} has no output {label}: choose one of {listed}")


def _most_tokens(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The most tokens that the model reads, by its tokenizer and its positions; None if neither has a limit."""
    limits = [tokenizer.model_max_length]
    positions = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa and its relatives count positions from the padding token's index on.
        tables = [
            module
            for path, module in network.named_modules()
            if path.endswith("position_embeddings") and isinstance(module, nn.Embedding)
        ]
        limits.append(
            positions - max((1 + table.padding_idx for table in tables if table.padding_idx is not None), default=0)
        )
    limit = min(limits)
    return limit if limit < _NO_LIMIT else None


def _chunks(inputs: Sequence[ModelInput]) -> Generator[list[int]]:
    """Indices of `inputs` in parts for one forward each, of similar lengths. The longest come first, so that too little
    memory is noticed at once."""
    chunk: list[int] = []
    for index in sorted(range(len(inputs)), key=lambda index: -len(inputs[index].ids)):
        if chunk and (len(chunk) == ROWS or (len(chunk) + 1) * len(inputs[chunk[0]].ids) > TOKENS):
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """(rows, tokens) int64, padded on the right."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=filler)
