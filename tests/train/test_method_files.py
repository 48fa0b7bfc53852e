"""Panacea adapters on disk: written, and read again by peft's stock loader and by the server."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from panacea.errors import CheckpointError, ConfigError, PreferenceError
from panacea.model.adapter import Adapter
from panacea.preference import Dimension
from panacea_train.method import PanaceaConfig, PanaceaLinear, save_adapter, steered
from tests.golden_files import ADAPTER, BASE
from tests.train.tiny import PEFT_WARNING, adapted, config, tiny_llama

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

PREFERENCES = torch.tensor([(1.0, 0.0, 0.0), (0.2, 0.5, 0.3), (0.0, 0.0, 0.0)])


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A base, an adapter of it beside it, and the folder of both."""
    tiny_llama().save_pretrained(tmp_path / "base")
    save_adapter(adapted(), tmp_path / "adapter", base=tmp_path / "base")
    return tmp_path


def logits(model: PeftModel, ids: Tensor) -> Tensor:
    with torch.no_grad(), steered(model, PREFERENCES):
        result: Tensor = model(ids).logits
    return result


def rewrite(adapter: Path, **changes: Any) -> None:
    """Changes keys of an adapter's config."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_config_has_the_formats_keys_and_no_others(saved: Path) -> None:
    written = json.loads((saved / "adapter" / "adapter_config.json").read_text())
    assert written == {
        "peft_type": "PANACEA",
        "format_version": 1,
        "base_model_name_or_path": "../base",
        "task_type": "CAUSAL_LM",
        "r": 5,
        "scaling": 2.0,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "preference_columns": [-1, -1, 0, 1, 2],
        "preference_dimensions": [{"name": name, "description": ""} for name in ("helpful", "harmless", "concise")],
        "default_preference": [0.5, 0.25, 0.25],
        "presets": {},
        "example_prompts": [],
    }


def test_the_tensors_have_the_formats_names_and_shapes(saved: Path) -> None:
    tensors = load_file(saved / "adapter" / "adapter_model.safetensors")
    sizes = dict.fromkeys(("q_proj", "o_proj"), (16, 16)) | dict.fromkeys(("k_proj", "v_proj"), (16, 8))
    sizes = {f"self_attn.{name}": size for name, size in sizes.items()}
    sizes |= {"mlp.gate_proj": (16, 24), "mlp.up_proj": (16, 24), "mlp.down_proj": (24, 16)}
    expected: dict[str, tuple[int, int]] = {}
    for layer in range(2):
        for module, (features_in, features_out) in sizes.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            expected |= {
                f"{name}.lora_A": (5, features_in),
                f"{name}.lora_B": (features_out, 5),
                f"{name}.lora_E": (5, 1),
            }
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    for name, tensor in tensors.items():
        if name.endswith("lora_E"):
            assert tensor[2] == tensor[3] == tensor[4]
            assert len(set(tensor.flatten().tolist())) == 3


def test_the_server_reads_it(saved: Path) -> None:
    adapter = Adapter.read(saved / "adapter")
    assert adapter.config.base_of(saved / "adapter").samefile(saved / "base")  # type: ignore[union-attr]
    assert len(adapter.modules) == 14


def test_nothing_else_is_written_and_all_may_read_it(saved: Path) -> None:
    files = sorted((saved / "adapter").iterdir())
    assert [file.name for file in files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert files[0].stat().st_mode == files[1].stat().st_mode


def test_reloading_gives_the_same_outputs_to_the_bit(saved: Path, ids: Tensor) -> None:
    expected = logits(adapted(), ids)
    reloaded = PeftModel.from_pretrained(tiny_llama(), saved / "adapter")
    assert torch.equal(logits(reloaded, ids), expected)
    assert not any(parameter.requires_grad for parameter in reloaded.parameters())


@pytest.mark.parametrize("one_scale", [True, False])
def test_save_pretrained_writes_the_same_and_reloads(tmp_path: Path, ids: Tensor, one_scale: bool) -> None:
    model = adapted(one_scale_per_matrix=one_scale)
    model.save_pretrained(str(tmp_path))
    reloaded = PeftModel.from_pretrained(tiny_llama(), tmp_path, is_trainable=True)
    assert torch.equal(logits(reloaded, ids), logits(model, ids))
    layer = next(m for m in reloaded.modules() if isinstance(m, PanaceaLinear))
    assert layer.lora_E["default"].shape == (3 if one_scale else 5, 1)
    assert layer.lora_E["default"].requires_grad
    reloaded.save_pretrained(str(tmp_path / "again"))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_reloading_without_first_values_gives_the_same_outputs(saved: Path, ids: Tensor) -> None:
    reloaded = PeftModel.from_pretrained(tiny_llama(), saved / "adapter", low_cpu_mem_usage=True)
    assert torch.equal(logits(reloaded, ids), logits(adapted(), ids))


def test_pefts_auto_class_loads_the_base_too(saved: Path, ids: Tensor) -> None:
    # It reads relative paths from where the process runs; only the config's own class knows the adapter's folder.
    rewrite(saved / "adapter", base_model_name_or_path=str(saved / "base"))
    model = AutoPeftModelForCausalLM.from_pretrained(str(saved / "adapter"))
    assert torch.equal(logits(model, ids), logits(adapted(), ids))


def test_a_relative_base_stays_relative_where_the_adapter_moves(saved: Path) -> None:
    model = PeftModel.from_pretrained(tiny_llama(), saved / "adapter")
    model.save_pretrained(str(saved / "deep" / "copy"), save_embedding_layers=False)
    written = json.loads((saved / "deep" / "copy" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "../../base"


def test_the_golden_adapter_is_written_as_it_was_read(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(BASE), ADAPTER)
    save_adapter(model, tmp_path)
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (ADAPTER, tmp_path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_bfloat16_on_disk_is_the_rounded_adapter(tmp_path: Path, ids: Tensor) -> None:
    model = adapted()
    save_adapter(model, tmp_path, base=BASE, dtype=torch.bfloat16)
    assert {t.dtype for t in load_file(tmp_path / "adapter_model.safetensors").values()} == {torch.bfloat16}
    reloaded = PeftModel.from_pretrained(tiny_llama(), tmp_path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(parameter.to(torch.bfloat16))
    assert torch.equal(logits(reloaded, ids), logits(model, ids))


def test_a_base_that_nobody_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pass base"):
        save_adapter(adapted(), tmp_path)
    with pytest.raises(ConfigError, match="not a folder"):
        save_adapter(adapted(), tmp_path, base=tmp_path / "absent")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop(next(iter(t))), "has no tensor base_model.model.model.layers.0"),
        (lambda t: t.update({"base_model.model.model.layers.9.mlp.up_proj.lora_A": torch.ones(5, 16)}), "layers.9"),
        (lambda t: t.update({"base_model.model.model.norm.weight": torch.ones(16)}), "model.norm.weight"),
        (lambda t: t.update({NAME: torch.ones(4, 16)}), r"has shape \(4, 16\) instead of \(5, 16\)"),
        (lambda t: t.update({NAME: torch.full((5, 16), torch.inf)}), "not finite"),
    ],
    ids=["missing", "no such module", "no adapter tensor", "shape", "infinite"],
)
def test_a_damaged_file_is_refused_by_name(saved: Path, damage: Any, message: str) -> None:
    path = saved / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    damage(tensors)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=message):
        PeftModel.from_pretrained(tiny_llama(), saved / "adapter")


NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_A"


def test_a_later_format_is_refused(saved: Path) -> None:
    rewrite(saved / "adapter", format_version=2)
    with pytest.raises(CheckpointError, match="format_version"):
        PeftModel.from_pretrained(tiny_llama(), saved / "adapter")


def test_the_papers_columns_and_scaling_follow_from_k_and_the_dimensions() -> None:
    made = PanaceaConfig(preference_dimensions=["helpful", Dimension("concise", "short")])
    assert made.columns == [-1] * 8 + [0, 1]
    assert made.r == 10
    assert made.scaling == 64.0
    assert made.default_preference == [0.5, 0.5]
    assert made.preference_dimensions == [
        {"name": "helpful", "description": ""},
        {"name": "concise", "description": "short"},
    ]


def test_presets_and_prompts_are_carried_through(tmp_path: Path) -> None:
    made = config(presets={"short": [0, 0, 2]}, example_prompts=["How do I boil an egg?"])
    made.save_pretrained(str(tmp_path))
    assert PanaceaConfig.from_pretrained(tmp_path).presets == {"short": [0.0, 0.0, 1.0]}
    assert PanaceaConfig.from_pretrained(tmp_path).space == made.space
    assert PanaceaConfig.from_pretrained(tmp_path).space.example_prompts == ("How do I boil an egg?",)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"shared_columns": 0, "scaling": None}, ConfigError),
        ({"r": 4}, ConfigError),
        ({"preference_columns": [-1, 0, 1, 2]}, ConfigError),  # of which 1 is shared, not 2
        ({"shared_columns": None, "preference_columns": [-1, 0, 1, 3]}, ConfigError),
        ({"shared_columns": None, "preference_columns": [-1, 0, 1]}, ConfigError),  # none for the third dimension
        ({"shared_columns": None, "preference_columns": []}, ConfigError),
        ({"scaling": float("nan")}, ConfigError),
        ({"target_modules": []}, ConfigError),
        ({"default_preference": [1, 0]}, PreferenceError),
        ({"preference_dimensions": ["helpful", "helpful", "concise"]}, PreferenceError),
        ({"preference_dimensions": [{"name": "a", "weight": "1"}, "b", "c"]}, PreferenceError),
        ({"preference_dimensions": [{"description": "a"}, "b", "c"]}, PreferenceError),
        ({"presets": {"base": [1, 0, 0]}}, PreferenceError),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        config(**changes)


def test_all_linear_means_every_layer_but_the_head(tmp_path: Path, ids: Tensor) -> None:
    model = get_peft_model(tiny_llama(), config(target_modules="all-linear"))
    assert sum(isinstance(module, PanaceaLinear) for module in model.modules()) == 14
    model.save_pretrained(str(tmp_path))
    assert torch.equal(logits(PeftModel.from_pretrained(tiny_llama(), tmp_path), ids), logits(model, ids))
