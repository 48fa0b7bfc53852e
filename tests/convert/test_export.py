"""`panacea export`: loaded by peft and by transformers, against the golden files and against weights merged by hand."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from panacea.config import EngineConfig
from panacea.demo_model import DEMO_ADAPTER
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import CheckpointError, ConfigError
from panacea.model.adapter import Adapter
from panacea_commands import main as cli
from panacea_train.convert import adapter_export
from panacea_train.convert.adapter_export import export_adapter
from panacea_train.convert.soup import convert_soup
from panacea_train.method import save_adapter
from tests.convert.adapters import CONCISE, HELPFUL
from tests.fake_hub import fake_hub
from tests.golden_files import ADAPTER, BASE, GOLDEN, Golden, golden
from tests.train.tiny import PEFT_WARNING, adapted, merged_weights, tiny_llama

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

PREFERENCES = list(dict.fromkeys(entry.preference for entry in golden("panacea") if entry.preference))

FLOAT32 = 5e-4
"""Logits reach 16, and the golden models' random weights amplify what float32 rounds; answers decide by 5e-3."""


def check_golden(model: Any, preference: tuple[float, ...]) -> None:
    """Logits and greedy answers of a model at one preference, by transformers alone."""
    entries: list[Golden] = [entry for entry in golden("panacea") if entry.preference == preference]
    assert len(entries) == 3
    for entry in entries:
        prompt = torch.tensor([entry.prompt_ids])
        with torch.no_grad():
            logits = model(prompt).logits[0, -1]
            answer = model.generate(prompt, max_new_tokens=24, do_sample=False)[0, len(entry.prompt_ids) :]
        torch.testing.assert_close(logits, torch.tensor(entry.next_token_logits), rtol=0, atol=FLOAT32)
        assert answer.tolist() == entry.greedy_ids


@pytest.mark.slow
@pytest.mark.parametrize("preference", PREFERENCES)
def test_peft_loads_the_lora_adapter_to_the_golden_logits(tmp_path: Path, preference: tuple[float, ...]) -> None:
    result = export_adapter(ADAPTER, tmp_path / "out", "lora", preference=preference)
    assert result.agreement.difference < FLOAT32 < result.agreement.effect
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), str(tmp_path / "out"))
    check_golden(model, preference)
    check_golden(model.merge_and_unload(), preference)


def test_columns_of_weight_0_are_left_out_of_the_lora_adapter(tmp_path: Path) -> None:
    export_adapter(ADAPTER, tmp_path / "out", "lora", preference=(0.0, 1.0, 0.0))
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8"))
    assert config["r"] == config["lora_alpha"] == 5
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name} == {5}
    assert Path(config["base_model_name_or_path"]).samefile(BASE)
    check_golden(AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "out")), (0.0, 1.0, 0.0))


@pytest.mark.parametrize("preference", PREFERENCES)
def test_transformers_loads_the_merged_model_to_the_golden_logits(
    tmp_path: Path, preference: tuple[float, ...]
) -> None:
    result = export_adapter(ADAPTER, tmp_path / "out", "merged", preference=preference)
    assert result.dtype == "float32"
    assert result.agreement.difference < FLOAT32
    check_golden(AutoModelForCausalLM.from_pretrained(tmp_path / "out"), preference)


def test_a_merged_model_is_served_as_the_adapter_is(tmp_path: Path) -> None:
    """And all that lies beside the weights is there: it chats as the base does."""
    preference = PREFERENCES[-1]
    export_adapter(ADAPTER, tmp_path / "out", "merged", preference=preference)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (BASE / name).read_bytes()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in BASE.iterdir()}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "out").iterdir())
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    message = [{"role": "user", "content": "How do I sharpen a knife?"}]
    prompt = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=False)
    engine = Engine.load(EngineConfig(model=tmp_path / "out"))
    (answer,) = engine.generate([Request(prompt, None, SamplingParams(max_tokens=24, temperature=0))])
    assert answer.token_ids == next(e for e in golden("panacea") if e.preference == preference).greedy_ids


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_are_rounded_once_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tied: bool
) -> None:
    """Tied or not, in either dtype, in several files."""
    base = tiny_llama(tie_word_embeddings=tied)
    base.to(dtype)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    base.save_pretrained(tmp_path / "base")
    save_adapter(adapted(tiny_llama(tie_word_embeddings=tied)), tmp_path / "adapter", base=tmp_path / "base")
    monkeypatch.setattr(adapter_export, "SHARD_SIZE", "4KB")
    preference = (0.5, 0.2, 0.3)
    result = export_adapter(tmp_path / "adapter", tmp_path / "out", "merged", preference=preference)
    assert result.dtype == str(dtype).removeprefix("torch.")

    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text("utf-8"))
    files = {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    assert set(index["weight_map"].values()) == files
    assert len(files) > 2
    written: dict[str, torch.Tensor] = {}
    for name in files:
        written |= load_file(tmp_path / "out" / name)
    before = load_file(tmp_path / "base" / "model.safetensors")
    assert written.keys() == before.keys()
    assert ("lm_head.weight" in written) == (not tied)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    by_hand = merged_weights(base, tensors, preference, (-1, -1, 0, 1, 2), 2.0)
    modules = Adapter.read(tmp_path / "adapter").modules
    for name, tensor in written.items():
        adapted_here = name.removesuffix(".weight") in modules
        expected = by_hand[name].to(dtype) if adapted_here else before[name]
        assert tensor.dtype == dtype
        # Sums of float64 in another order may be rounded to the neighbouring number.
        torch.testing.assert_close(tensor, expected, rtol=1e-6 if dtype == torch.float32 else 8e-3, atol=1e-7)
        if not adapted_here:
            assert torch.equal(tensor, expected)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == dtype
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


def test_another_dtype_can_be_asked_for(tmp_path: Path) -> None:
    for form, file in (("lora", "adapter_model.safetensors"), ("merged", "model.safetensors")):
        result = export_adapter(
            ADAPTER, tmp_path / form, "lora" if form == "lora" else "merged", preference=(1, 0, 0), dtype="bfloat16"
        )
        assert result.dtype == "bfloat16"
        assert {tensor.dtype for tensor in load_file(tmp_path / form / file).values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "merged" / "config.json").read_text("utf-8"))["dtype"] == "bfloat16"


def test_a_generation_config_that_transformers_would_not_write_is_copied(tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    odd = b'{"do_sample": false, "temperature": 0.5, "eos_token_id": 1, "max_new_tokens": 5}'
    (tmp_path / "base" / "generation_config.json").write_bytes(odd)
    export_adapter(ADAPTER, tmp_path / "out", "merged", preference=(1, 0, 0), model=str(tmp_path / "base"))
    assert (tmp_path / "out" / "generation_config.json").read_bytes() == odd


def test_a_soup_gives_back_its_ingredients(tmp_path: Path) -> None:
    convert_soup({"helpful": HELPFUL, "concise": CONCISE}, tmp_path / "soup")
    for preference, source in (((1.0, 0.0), HELPFUL), ((0.0, 1.0), CONCISE)):
        out = tmp_path / source.name
        export_adapter(tmp_path / "soup", out, "lora", preference=preference)
        before, after = (load_file(folder / "adapter_model.safetensors") for folder in (source, out))
        config = json.loads((source / "adapter_config.json").read_text("utf-8"))
        for name in (name for name in before if "lora_A" in name):
            pair = name, name.replace("lora_A", "lora_B")
            a, b = (before[part] for part in pair)
            new_a, new_b = (after[part] for part in pair)
            assert torch.equal(new_a, a)
            torch.testing.assert_close(new_b, b * config["lora_alpha"] / config["r"])
        left_alone = after.keys() - before.keys()
        assert bool(left_alone) == (source is HELPFUL)
        assert all(after[name].abs().max() == 0 for name in left_alone if "lora_B" in name)
    # And back: the two exported adapters are the same soup.
    agreement = convert_soup({name: tmp_path / name for name in ("helpful", "concise")}, tmp_path / "again")
    assert agreement.difference < FLOAT32


def test_a_result_that_differs_is_an_error_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export_adapter(ADAPTER, out, "merged", preference=(1, 0, 0))
    before = (out / "model.safetensors").read_bytes()
    right = adapter_export.delta
    monkeypatch.setattr(adapter_export, "delta", lambda *arguments: 1.1 * right(*arguments))
    with pytest.raises(CheckpointError, match="the conversion is wrong and nothing was written"):
        export_adapter(ADAPTER, out, "merged", preference=(0, 1, 0), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "model.safetensors").read_bytes() == before


def test_only_an_adapter_or_a_model_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_adapter(ADAPTER, out, "merged", preference=(1, 0, 0))
    with pytest.raises(ConfigError, match="exists already; --overwrite replaces it"):
        export_adapter(ADAPTER, out, "lora", preference=(1, 0, 0))
    export_adapter(ADAPTER, out, "lora", preference=(1, 0, 0), overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("", "utf-8")
    with pytest.raises(ConfigError, match="is not an adapter or model, so it is not replaced"):
        export_adapter(ADAPTER, tmp_path / "mine", "lora", preference=(1, 0, 0), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_numbers_that_do_not_fit_the_dtype_are_refused(tmp_path: Path) -> None:
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"scaling": 1e6}), "utf-8")
    with pytest.raises(CheckpointError, match=r"overflow in torch.float16: choose another --dtype"):
        export_adapter(
            tmp_path / "adapter", tmp_path / "out", "lora", preference=(1, 0, 0), model=str(BASE), dtype="float16"
        )


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["panacea", "export", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


DEMO = DEMO_ADAPTER


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--adapter", str(ADAPTER)), "helpful 0.4, harmless 0.3, concise 0.3, in float32"),
        (
            ("--adapter", str(ADAPTER), "--preference", "helpful=2,concise=1"),
            "helpful 0.6667, harmless 0, concise 0.3333",
        ),
        (("--adapter", str(ADAPTER), "--preference", "0,1,1"), "helpful 0, harmless 0.5, concise 0.5"),
        (("--adapter", str(DEMO), "--preference", "careful"), "helpful 0.5, harmless 0.5, concise 0, in float32"),
    ],
)
def test_the_command_says_at_which_preference(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run_cli(monkeypatch, *arguments, "--as", "lora", "--out", str(tmp_path / "out")) == 0
    printed = capfd.readouterr().out
    assert said in printed
    assert "Checked at 1 preference: the largest difference of logits before and after is " in printed


GIVEN = ("--adapter", str(ADAPTER))
WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no_form": (GIVEN, "--as"),
    "form": ((*GIVEN, "--as", "gguf"), "--as"),
    "preference": ((*GIVEN, "--as", "lora", "--preference", "brief"), "write name=weight"),
    "dimension": ((*GIVEN, "--as", "lora", "--preference", "brief=1"), "unknown dimension"),
    "zero": ((*GIVEN, "--as", "lora", "--preference", "helpful=0"), "no weight above 0"),
    "count": ((*GIVEN, "--as", "lora", "--preference", "1,2"), "2 weights instead of 3"),
    "nan": ((*GIVEN, "--as", "lora", "--preference", "helpful=nan"), "between 0 and 1e6"),
    "no_adapter": (("--adapter", str(BASE), "--as", "lora"), "is not an adapter folder"),
    "no_base": ((*GIVEN, "--as", "merged", "--model", "/no/such/folder"), "neither a folder nor a hub id"),
    "other_base": (("--adapter", str(DEMO), "--as", "merged", "--model", str(BASE)), "demo/adapter"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_one_clear_line_and_exit_code_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, message = WRONG[case]
    assert run_cli(monkeypatch, *arguments, "--out", str(tmp_path / "out")) == 2
    line = capfd.readouterr().err.splitlines()[-1].rpartition("\r")[2]
    assert line.startswith("panacea: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_adapters_and_base_may_lie_on_the_hub(tmp_path: Path) -> None:
    for name, source in (("helpful", HELPFUL), ("concise", CONCISE)):
        shutil.copytree(source, tmp_path / name)
        path = tmp_path / name / "adapter_config.json"
        config = json.loads(path.read_text("utf-8")) | {"base_model_name_or_path": "somebody/base"}
        path.write_text(json.dumps(config), "utf-8")
    repositories = {"somebody/base": BASE} | {f"somebody/{name}": tmp_path / name for name in ("helpful", "concise")}
    soup, lora = str(tmp_path / "soup"), str(tmp_path / "lora")
    both = ["--adapter", "helpful=somebody/helpful", "--adapter", "concise=somebody/concise"]
    commands = [
        ["convert", "soup", *both, "--out", soup],
        ["export", "--as", "lora", "--preference", "helpful=0.7,concise=0.3", "--adapter", soup, "--out", lora],
    ]
    # One process, which sees another hub than this one does.
    code = f"from panacea_commands.main import run\nfor command in {commands}: assert run(command) == 0"
    with fake_hub(repositories) as endpoint:
        environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
    assert Adapter.read(tmp_path / "soup").config.base_model == "somebody/base"
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "somebody/base"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), str(tmp_path / "lora"))
    expected = json.loads((GOLDEN / "expected.json").read_text("utf-8"))["soup"][1]["outputs"][0]
    with torch.no_grad():
        logits = model(torch.tensor([expected["prompt_ids"]])).logits[0, -1]
    torch.testing.assert_close(logits, torch.tensor(expected["next_token_logits"]), rtol=0, atol=FLOAT32)
