"""Every check of the adapter's format: one damaged copy of the golden adapter per check."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from panacea.config import EngineConfig
from panacea.errors import CheckpointError, ConfigError
from panacea.model.adapter import Adapter
from panacea.model.adapter_config import AdapterConfig
from panacea.model.loader import load_model
from tests.golden_files import ADAPTER, BASE

Change = Callable[[Any], Any]
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    return tmp_path / "adapter"


def edit_config(folder: Path, change: Change) -> None:
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def edit_tensors(folder: Path, change: Change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def test_the_golden_adapter_is_read_as_it_is() -> None:
    adapter = Adapter.read(ADAPTER)
    assert adapter.config.space.names == ("helpful", "harmless", "concise")
    assert adapter.config.preference_columns == (-1, -1, -1, -1, 0, 1, 2)
    assert adapter.config.scaling == 2.0
    assert adapter.config.column_weights((0.5, 0.25, 0.25)) == [1, 1, 1, 1, 0.5, 0.25, 0.25]
    assert adapter.config.column_weights(None) == [0.0] * 7
    assert adapter.config.base_of(ADAPTER) == ADAPTER / "../base"
    assert len(adapter.modules) == 21


def test_writing_and_reading_gives_the_same(tmp_path: Path) -> None:
    adapter = Adapter.read(ADAPTER)
    adapter.write(tmp_path)
    again = Adapter.read(tmp_path)
    assert again.config == adapter.config
    assert again.modules.keys() == adapter.modules.keys()
    for name, low_rank in adapter.modules.items():
        assert all(torch.equal(new, old) for new, old in zip(again.modules[name], low_rank, strict=True))


def put(key: str, value: object) -> Change:
    return lambda content: content.__setitem__(key, value)


def drop(key: str) -> Change:
    return lambda content: content.pop(key)


CONFIG_CHANGES: dict[str, tuple[Change, str]] = {
    "peft_type": (put("peft_type", "LORA"), "peft_type is 'LORA'"),
    "format_version": (put("format_version", 2), "format_version must be 1"),
    "task_type": (put("task_type", "SEQ_CLS"), "task_type"),
    "no_base": (drop("base_model_name_or_path"), "base_model_name_or_path is missing"),
    "base_no_string": (put("base_model_name_or_path", 7), "base_model_name_or_path has the wrong type"),
    "r_differs": (put("r", 8), "r is 8, but preference_columns has 7"),
    "r_is_true": (put("r", True), "r has the wrong type"),
    "no_scaling": (drop("scaling"), "scaling is missing"),
    "scaling_nan": (put("scaling", float("nan")), "scaling must be a finite"),
    "scaling_zero": (put("scaling", 0), "scaling must be a finite"),
    "column_too_high": (put("preference_columns", [-1, -1, -1, 0, 1, 2, 3]), "preference_columns holds 3"),
    "column_too_low": (put("preference_columns", [-2, -1, -1, -1, 0, 1, 2]), "preference_columns holds -2"),
    "column_no_int": (put("preference_columns", [-1, -1, -1, -1, 0, 1, 2.0]), "preference_columns has an entry"),
    "columns_empty": (put("preference_columns", []), "preference_columns is empty"),
    "dimension_unused": (
        put("preference_columns", [-1, -1, -1, -1, 0, 1, 1]),
        "dimension 'concise' has no effect",
    ),
    "dimension_unnamed": (put("preference_dimensions", [{"description": "x"}] * 3), "name is missing"),
    "dimension_twice": (put("preference_dimensions", [{"name": "a"}] * 3), "dimension name 'a' occurs twice"),
    "dimension_bad_name": (
        put("preference_dimensions", [{"name": n} for n in ("a b", "c", "d")]),
        "dimension name 'a b'",
    ),
    "default_length": (put("default_preference", [0.5, 0.5]), "default_preference must be 3 numbers"),
    "default_missing": (drop("default_preference"), "default_preference must be 3 numbers"),
    "default_zero": (put("default_preference", [0, 0, 0]), "no weight above 0"),
    "default_negative": (put("default_preference", [1, -1, 1]), "between 0 and 1e6"),
    "preset_length": (put("presets", {"x": [1]}), "presets.x must be 3 numbers"),
    "preset_called_base": (put("presets", {"base": [1, 1, 1]}), "cannot be called 'base'"),
    "preset_name": (put("presets", {"a:b": [1, 1, 1]}), "preset name 'a:b'"),
    "prompts": (put("example_prompts", [3]), "example_prompts has an entry"),
    "targets": (put("target_modules", []), "target_modules is empty"),
    "targets_no_expression": (put("target_modules", "(q_proj"), "target_modules is not a valid regular expression"),
    **{
        name: (put(name, value), f"{name} is set: it belongs to another method")
        for name, value in {
            "use_dora": True,
            "use_rslora": True,
            "lora_bias": True,
            "bias": "all",
            "modules_to_save": ["lm_head"],
            "rank_pattern": {"q_proj": 4},
            "alpha_pattern": {"q_proj": 4},
            "layers_to_transform": [0],
            "fan_in_fan_out": True,
            "trainable_token_indices": [1],
            "target_parameters": ["experts"],
        }.items()
    },
    "loha": (put("peft_type", "LOHA"), "peft_type is 'LOHA', not 'PANACEA': only Panacea's method is served"),
    "peft_type_long": (put("peft_type", "n" * 100_000), "peft_type is 'nnn"),
    "dimension_long": (put("preference_dimensions", [{"name": "n" * 100_000}] * 3), "dimension name 'nnn"),
    "preset_long": (put("presets", {"n" * 100_000: [1, 1, 1]}), "preset name 'nnn"),
    "presets_many": (put("presets", {f"p{i}": [1, 1, 1] for i in range(1001)}), "presets has 1001 entries"),
    "columns_many": (put("preference_columns", [0, 1, 2] * 33_333), "preference_columns has 99999 entries"),
    "targets_deep": (put("target_modules", "(" * 5000 + ")" * 5000), "target_modules is not a valid regular"),
    "scaling_beyond_floats": (put("scaling", 10**400), "scaling must be a finite"),
}


@pytest.mark.parametrize("case", CONFIG_CHANGES)
def test_a_wrong_config_is_refused_with_file_and_field(folder: Path, case: str) -> None:
    change, message = CONFIG_CHANGES[case]
    edit_config(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        AdapterConfig.read(folder)
    assert str(folder / "adapter_config.json") in str(caught.value)
    assert len(str(caught.value)) < 600


TENSOR_CHANGES: dict[str, tuple[Change, str]] = {
    "foreign_name": (put("base_model.model.lm_head.weight", torch.zeros(1)), "is not a tensor of a Panacea adapter"),
    "no_a": (drop(f"{Q_PROJ}.lora_A"), "lora_A of .*q_proj is missing"),
    "no_b": (drop(f"{Q_PROJ}.lora_B"), "lora_B of .*q_proj is missing"),
    "no_e": (drop(f"{Q_PROJ}.lora_E"), "lora_E of .*q_proj is missing"),
    "shape_a": (put(f"{Q_PROJ}.lora_A", torch.zeros(6, 96)), r"lora_A has shape \(6, 96\), not \(7, in\)"),
    "shape_b": (put(f"{Q_PROJ}.lora_B", torch.zeros(96, 8)), r"lora_B has shape \(96, 8\), not \(out, 7\)"),
    "shape_e": (put(f"{Q_PROJ}.lora_E", torch.zeros(7)), r"lora_E has shape \(7,\), not \(7, 1\)"),
    "dtype": (put(f"{Q_PROJ}.lora_E", torch.zeros(7, 1, dtype=torch.int32)), "dtype torch.int32"),
    "nan_a": (put(f"{Q_PROJ}.lora_A", torch.full((7, 96), torch.nan)), "lora_A has values that are not finite"),
    "inf_b": (put(f"{Q_PROJ}.lora_B", torch.full((96, 7), torch.inf)), "lora_B has values that are not finite"),
    "inf_e": (put(f"{Q_PROJ}.lora_E", torch.full((7, 1), -torch.inf)), "lora_E has values that are not finite"),
    "empty": (lambda tensors: tensors.clear(), "holds no tensors"),
    "float8": (put(f"{Q_PROJ}.lora_A", torch.zeros(7, 96).to(torch.float8_e4m3fn)), "store adapters in 16 or 32 bits"),
    "magnitudes": (put(f"{Q_PROJ}.lora_magnitude_vector", torch.ones(96)), "is not a tensor of a Panacea adapter"),
    "embedding": (put("base_model.model.embed.lora_embedding_A", torch.ones(7, 9)), "is not a tensor of a Panacea"),
    "name_long": (put(f"base_model.model.{'n' * 100_000}.lora_A", torch.zeros(7, 9)), "is not a tensor of a Panacea"),
}


@pytest.mark.parametrize("case", TENSOR_CHANGES)
def test_a_wrong_tensor_is_refused_by_name(folder: Path, case: str) -> None:
    change, message = TENSOR_CHANGES[case]
    edit_tensors(folder, change)
    with pytest.raises(CheckpointError, match=message):
        Adapter.read(folder)


def test_damaged_and_missing_files_are_refused(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match="is damaged: it has no safetensors header"):
        Adapter.read(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is missing \(other formats are not read\)"):
        Adapter.read(folder)
    (folder / "adapter_config.json").write_text("{", "utf-8")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Adapter.read(folder)
    (folder / "adapter_config.json").write_text("[" * 100_000, "utf-8")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Adapter.read(folder)
    (folder / "adapter_config.json").write_text("[]", "utf-8")
    with pytest.raises(CheckpointError, match="is not a JSON object"):
        Adapter.read(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"is not an adapter folder: adapter_config\.json is missing"):
        Adapter.read(folder)


def test_100_000_dimensions_are_refused_in_a_moment(folder: Path) -> None:
    """The search for unused dimensions took a time that grew with the square of their number."""

    def many(content: Any) -> None:
        count = 100_000
        content.update(
            r=count,
            preference_columns=list(range(count)),
            preference_dimensions=[{"name": f"d{i}"} for i in range(count)],
            default_preference=[1] * count,
            presets={},
        )

    edit_config(folder, many)
    begin = time.process_time()
    with pytest.raises(CheckpointError, match="preference_columns has 100000 entries; at most 4096 are read"):
        AdapterConfig.read(folder)
    assert time.process_time() - begin < 20


def test_an_expression_that_takes_years_is_refused(folder: Path) -> None:
    edit_config(folder, put("target_modules", "(a|aa)+$"))
    config = AdapterConfig.read(folder)
    with pytest.raises(CheckpointError, match="is a regular expression that takes too long"):
        config.targets("a" * 200 + "b")


def test_values_beyond_the_models_dtype_are_refused(folder: Path) -> None:
    edit_config(folder, put("scaling", 1e9))
    load_model(EngineConfig(model=BASE, adapter=folder, dtype="float32"))
    with pytest.raises(CheckpointError, match=r"times its scaling are too large for torch\.float16"):
        load_model(EngineConfig(model=BASE, adapter=folder, dtype="float16"))


def test_a_tensor_that_is_there_twice_is_refused(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].decode().rstrip()
    name, entry = next((name, entry) for name, entry in json.loads(header).items() if name != "__metadata__")
    longer = f"{header[:-1]},{json.dumps(name)}:{json.dumps(entry)}}}".encode()
    path.write_bytes(len(longer).to_bytes(8, "little") + longer + raw[8 + length :])
    with pytest.raises(CheckpointError, match="names a tensor twice"):
        Adapter.read(folder)


def test_names_and_files_that_are_none_are_refused(folder: Path) -> None:
    edit_config(folder, put("base_model_name_or_path", "n" * 100_000))
    with pytest.raises(CheckpointError, match="base_model_name_or_path is no path"):
        AdapterConfig.read(folder).base_of(folder)
    (folder / "adapter_config.json").unlink()
    os.mkfifo(folder / "adapter_config.json")
    with pytest.raises(CheckpointError, match="it is not a file"):
        AdapterConfig.read(folder)


def rename_module(tensors: dict[str, torch.Tensor], new: str) -> None:
    for part in "ABE":
        tensors[f"base_model.model.{new}.lora_{part}"] = tensors.pop(f"{Q_PROJ}.lora_{part}")


def narrow_a(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{Q_PROJ}.lora_A"] = torch.zeros(7, 95)


def without_q_proj(tensors: dict[str, torch.Tensor]) -> None:
    for part in "ABE":
        del tensors[f"{Q_PROJ}.lora_{part}"]


BASE_MISMATCHES: dict[str, tuple[Change | None, Change | None, str]] = {
    "no_such_module": (
        lambda t: rename_module(t, "model.layers.9.self_attn.q_proj"),
        None,
        "layers.9.*not a linear layer",
    ),
    "no_linear": (
        lambda t: rename_module(t, "model.layers.0.mlp"),
        None,
        "which is not a linear layer of the base model",
    ),
    "in_features": (narrow_a, None, "maps 95 to 96 features, the base model's 96 to 96"),
    "target_without_tensors": (without_q_proj, None, "target module model.layers.0.self_attn.q_proj has no tensors"),
    "tensors_without_target": (None, put("target_modules", ["k_proj"]), "which is not one of its target_modules"),
    "target_no_linear": (
        None,
        lambda c: c["target_modules"].append("mlp"),
        "target module model.layers.0.mlp is not a linear layer",
    ),
}


@pytest.mark.parametrize("case", BASE_MISMATCHES)
def test_an_adapter_that_does_not_fit_its_base_is_refused(folder: Path, case: str) -> None:
    tensors, config, message = BASE_MISMATCHES[case]
    if tensors:
        edit_tensors(folder, tensors)
    if config:
        edit_config(folder, config)
    with pytest.raises(CheckpointError, match=message):
        load_model(EngineConfig(model=BASE, adapter=folder))


def test_some_targets_of_a_fused_group_may_be_left_alone(folder: Path) -> None:
    """An adapter of q_proj and v_proj alone: k_proj, fused with them, stays the base's."""

    def keep(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".q_proj." not in name and ".v_proj." not in name]:
            del tensors[name]

    edit_tensors(folder, keep)
    edit_config(folder, put("target_modules", r".*\.(q|v)_proj"))
    model = load_model(EngineConfig(model=BASE, adapter=folder))
    part = model.network.get_submodule("model.layers.0.self_attn.q_proj")
    linear = part.get_submodule("linear")
    assert linear.get_buffer("b")[96:128].abs().max() == 0
    assert linear.get_buffer("b")[:96].abs().max() > 0
    assert linear.get_buffer("b")[128:].abs().max() > 0


def test_bases_are_found_beside_the_adapter_on_the_hub_or_not_at_all(folder: Path) -> None:
    def base_of(name: str) -> Path | str:
        edit_config(folder, put("base_model_name_or_path", name))
        return AdapterConfig.read(folder).base_of(folder)

    assert base_of(str(BASE)) == BASE
    assert base_of("somebody/some-model") == "somebody/some-model"
    for name in ("../nowhere", ""):
        with pytest.raises(CheckpointError, match="--model"):
            base_of(name)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_base_with_a_file_missing_is_refused_in_one_line(tmp_path: Path, missing: str) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    (tmp_path / "base" / missing).unlink()
    with pytest.raises(CheckpointError) as caught:
        load_model(EngineConfig(model=tmp_path / "base"))
    assert "\n" not in str(caught.value)


def test_a_base_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    tensors = load_file(tmp_path / "base/model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"the tensor model\.norm\.weight is missing"):
        load_model(EngineConfig(model=tmp_path / "base"))


def test_a_model_that_does_not_fit_the_gpu_is_refused_with_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: torch.nn.Module, device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(PreTrainedModel, "to", full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (1 << 30, 8 << 30))
    with pytest.raises(
        ConfigError, match=r"take 0\.0 GiB in torch.float32, but only 1\.0 GiB of the GPU's 8\.0 GiB are free"
    ):
        load_model(EngineConfig(model=BASE))
