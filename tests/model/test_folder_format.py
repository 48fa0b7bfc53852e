"""Folders and files that are not a model in safetensors: each is named as what it is, in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from panacea.config import EngineConfig
from panacea.errors import CheckpointError, ConfigError, PanaceaError
from panacea.model.checkpoint import Checkpoint
from panacea.model.loader import load_model
from tests.golden_files import ADAPTER, BASE

Change = Callable[[Path], object]
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(BASE, tmp_path / "base")
    return tmp_path / "base"


def load(name: Path) -> None:
    """As `panacea serve --model` does, up to the engine."""
    checkpoint = Checkpoint.find(str(name))
    load_model(EngineConfig(model=checkpoint.base, device="cpu"))


def refusal(name: Path) -> str:
    with pytest.raises(PanaceaError) as caught:
        load(name)
    assert isinstance(caught.value, CheckpointError | ConfigError)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


def without(*names: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def put(name: str, content: str = "{}") -> Change:
    return lambda folder: (folder / name).write_text(content, "utf-8")


def config(**values: object) -> Change:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text("utf-8"))
        (folder / "config.json").write_text(json.dumps({**content, **values}), "utf-8")

    return change


def tensors(**new: torch.Tensor) -> Change:
    def change(folder: Path) -> None:
        stored = load_file(folder / WEIGHTS)
        save_file({**stored, **{name.replace("__", "."): each for name, each in new.items()}}, folder / WEIGHTS)

    return change


def every_weight(dtype: torch.dtype) -> Change:
    def change(folder: Path) -> None:
        stored = load_file(folder / WEIGHTS)
        save_file({name: tensor.to(dtype) for name, tensor in stored.items()}, folder / WEIGHTS)

    return change


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def no_config(name: str) -> Change:
    return both(without("config.json"), put(name))


def index(shard: str) -> Change:
    listed = json.dumps({"weight_map": {"model.norm.weight": shard}})
    return both(without(WEIGHTS), put("model.safetensors.index.json", listed))


def twice(folder: Path) -> None:
    raw = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].decode().rstrip()
    name, entry = next((name, entry) for name, entry in json.loads(header).items() if name != "__metadata__")
    longer = f"{header[:-1]},{json.dumps(name)}:{json.dumps(entry)}}}".encode()
    (folder / WEIGHTS).write_bytes(len(longer).to_bytes(8, "little") + longer + raw[8 + length :])


SCALE = "quantised weights, which config.json does not describe"
CASES: dict[str, tuple[Change, str]] = {
    "gguf": (no_config("model-q4.gguf"), "holds GGUF files of llama.cpp"),
    "gguf_beside_config": (both(without(WEIGHTS), put("model.gguf")), "holds its weights as GGUF"),
    "pickle": (both(without(WEIGHTS), put("pytorch_model.bin")), "as pickle, which can run code and is not read"),
    "onnx": (both(without(WEIGHTS), put("model.onnx")), "for ONNX"),
    "no_weights": (without(WEIGHTS), "no .safetensors file is there"),
    "mistral_format": (no_config("params.json"), "in its author's own format"),
    "diffusion": (no_config("model_index.json"), "is a diffusion pipeline"),
    "lora": (
        both(without("config.json"), put("adapter_config.json", '{"peft_type": "LORA"}')),
        "is a LORA adapter of peft",
    ),
    "panacea": (
        both(without("config.json"), put("adapter_config.json", '{"peft_type": "PANACEA"}')),
        "give it with --adapter",
    ),
    "embedding": (both(put("modules.json"), put("config_sentence_transformers.json")), "is an embedding model"),
    "no_tokenizer": (without("tokenizer.json"), "has no tokenizer"),
    "modelopt": (put("hf_quant_config.json"), "is quantised (hf_quant_config.json"),
    "bert": (config(architectures=["BertForMaskedLM"]), "holds a BertForMaskedLM, which writes no text"),
    "encoder_decoder": (config(is_encoder_decoder=True), "is an encoder-decoder model"),
    "vision": (config(model_type="vit", architectures=None), "no causal language model of type 'vit'"),
    "unknown_type": (config(model_type="no_such_model"), "cannot be used"),
    "no_type": (config(model_type=None), "has no model_type"),
    "config_no_json": (put("config.json", "{"), "cannot be read as JSON"),
    "config_deep": (put("config.json", "[" * 100_000), "cannot be read as JSON"),
    "config_list": (put("config.json", "[]"), "does not hold a JSON object"),
    "config_folder": (both(without("config.json"), lambda folder: (folder / "config.json").mkdir()), "is missing"),
    "layers_huge": (config(num_hidden_layers=10**9), "num_hidden_layers must be a whole number from 1 to 10000"),
    "context_huge": (config(max_position_embeddings=10**30), "max_position_embeddings must be a whole number"),
    "layers_text": (config(num_hidden_layers="two"), "num_hidden_layers must be a whole number"),
    "vocabulary_differs": (config(vocab_size=4000), "cannot be loaded"),
    "float8_scales": (tensors(model__norm__weight_scale=torch.ones(1)), SCALE),
    "float8_inverse": (tensors(model__layers__0__mlp__down_proj__weight_scale_inv=torch.ones(1)), SCALE),
    "key_scales": (tensors(model__layers__0__self_attn__k_scale=torch.ones(1)), SCALE),
    "float8": (every_weight(torch.float8_e4m3fn), SCALE),
    "int8": (every_weight(torch.int8), SCALE),
    "packed": (tensors(model__layers__0__mlp__down_proj__qweight=torch.ones(2, dtype=torch.int32)), SCALE),
    "cut_off": (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]), "is cut off"),
    "no_header": (lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 100), "no safetensors header"),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "no safetensors header"),
    "lfs": (put(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "is a Git LFS pointer"),
    "tensor_twice": (twice, "names a tensor twice"),
    "shard_missing": (index("model-00001-of-00002.safetensors"), "model-00001-of-00002.safetensors is missing"),
    "shard_elsewhere": (index("../base/model.safetensors"), "is damaged: it must map each tensor"),
    "index_list": (both(without(WEIGHTS), put("model.safetensors.index.json", "[]")), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_is_not_a_model_in_safetensors_is_named(folder: Path, case: str) -> None:
    change, message = CASES[case]
    change(folder)
    assert message in refusal(folder)


def test_files_are_named_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "is a GGUF file of llama.cpp" in refusal(tmp_path / "model.gguf")
    assert "give the model's folder" in refusal(folder / WEIGHTS)
    assert "is a Panacea adapter, not a model" in refusal(ADAPTER)
    assert "is not a folder: File name too long" in refusal(tmp_path / ("n" * 100_000))


def test_a_whole_folder_is_loaded(folder: Path) -> None:
    load(folder)


def test_masks_and_scales_of_plain_models_are_not_refused(folder: Path) -> None:
    mask, scale = torch.ones(4, 4, dtype=torch.bool), torch.ones(1)
    tensors(model__layers__0__self_attn__bias=mask, model__layers__0__altup__correct_output_scale=scale)(folder)
    load(folder)
