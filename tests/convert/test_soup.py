"""`panacea convert soup` against the golden files, and against peft's own mixed and merged weights."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import CheckpointError, ConfigError, PreferenceError
from panacea.model import loader
from panacea.model.adapter import Adapter
from panacea_commands import main as cli
from panacea_train.convert import soup
from panacea_train.convert.soup import convert_soup
from tests.command import serving
from tests.convert.adapters import CONCISE, HELPFUL, VARIETY, save_lora
from tests.engine.asking import requests
from tests.golden_files import BASE, GOLDEN, golden
from tests.train.tiny import PEFT_WARNING, tiny_llama

pytestmark = pytest.mark.filterwarnings(PEFT_WARNING)

GREEDY = SamplingParams(max_tokens=24, temperature=0)


@pytest.fixture(scope="module")
def golden_soup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("soup") / "adapter"
    convert_soup({"helpful": HELPFUL, "concise": CONCISE}, out)
    return out


def test_the_golden_mixes_are_served_token_for_token(golden_soup: Path) -> None:
    engine = Engine.load(EngineConfig(model=BASE, adapter=golden_soup, dtype="float32"))
    entries = [*golden("soup"), *golden("base")]
    assert len(entries) == 15
    answers = engine.generate(requests([e.prompt_ids for e in entries], [e.preference for e in entries], GREEDY))
    assert [answer.token_ids for answer in answers] == [e.greedy_ids for e in entries]


def test_the_adapter_says_what_it_is(golden_soup: Path) -> None:
    adapter = Adapter.read(golden_soup)
    config = adapter.config
    assert config.space.names == ("helpful", "concise")
    assert config.space.default == (0.5, 0.5)
    assert config.preference_columns == (0, 0, 0, 1, 1, 1, 1)
    assert config.scaling == 1
    assert set(config.target_modules) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert Path(str(config.base_of(golden_soup))).samefile(BASE)
    assert adapter.modules["model.layers.0.self_attn.q_proj"].e.tolist() == [2.0] * 3 + [1.5] * 4
    left_alone = adapter.modules["model.layers.0.self_attn.k_proj"]  # by the helpful adapter
    assert left_alone.e.tolist() == [0.0] * 3 + [1.5] * 4
    assert left_alone.a[:3].abs().max() == left_alone.b[:, :3].abs().max() == 0


def test_the_folder_is_there_for_all_to_read_and_nothing_beside_it(golden_soup: Path) -> None:
    assert [path.name for path in golden_soup.parent.iterdir()] == [golden_soup.name]
    assert sorted(path.name for path in golden_soup.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert golden_soup.stat().st_mode & 0o055 == 0o055


@pytest.fixture(scope="module")
def variety(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base and ten LoRA adapters of it, each of another kind."""
    folder = tmp_path_factory.mktemp("variety")
    tiny_llama().save_pretrained(folder / "base")
    for index, (name, config) in enumerate(VARIETY.items()):
        save_lora(folder / name, "../base", seed=index, **config)
    return folder


def merged_by_peft(folder: Path, names: Sequence[str], preference: Sequence[float]) -> dict[str, torch.Tensor]:
    """Every weight of W0 + sum of weight * delta, with each adapter's delta as peft itself computes it (float64)."""
    base = tiny_llama().double()
    model: Any = PeftModel.from_pretrained(base, str(folder / names[0]), adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(str(folder / name), adapter_name=name)
    model.double()
    layers: dict[str, Any] = {n: m for n, m in model.base_model.model.named_modules() if isinstance(m, LoraLayer)}
    weights: dict[str, torch.Tensor] = {}
    for path, layer in layers.items():
        weights[path] = layer.get_base_layer().weight.detach().clone()
        for name, weight in zip(names, preference, strict=True):
            if name in layer.lora_A:
                weights[path] += weight * layer.get_delta_weight(name).detach()
    return weights


def check_against_peft(folder: Path, names: Sequence[str], out: Path) -> None:
    agreement = convert_soup({name: folder / name for name in names}, out)
    assert agreement.difference < 1e-4 < agreement.effect
    adapter = Adapter.read(out)
    base = tiny_llama().double()
    vertex = [0.0] * len(names)
    vertex[-1] = 1.0
    uneven = [float(2 * index + 1) for index in range(len(names))]
    for weights in (vertex, uneven):
        preference = adapter.config.space.resolve(weights)
        w = torch.tensor(adapter.config.column_weights(preference), dtype=torch.float64)
        expected = merged_by_peft(folder, names, preference)
        assert adapter.modules.keys() == expected.keys()
        for name, (a, b, e) in adapter.modules.items():
            merged = base.get_submodule(name).weight + (b.double() * (e.double() * w)) @ a.double()  # type: ignore[operator]
            # E holds alpha/r in float32; everything else is the adapters' own numbers.
            torch.testing.assert_close(merged, expected[name], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("plain", "patterns"),
        ("rslora", "some_layers", "plain"),
        ("expression", "excluding"),
        ("sixteen_bits", "patterns", "dropout"),
        tuple(VARIETY),
    ],
    ids=lambda names: "+".join(names) if len(names) < 4 else "all ten",
)
def test_any_mix_has_the_weights_that_peft_computes(variety: Path, tmp_path: Path, names: Sequence[str]) -> None:
    check_against_peft(variety, names, tmp_path / "out")


def test_peft_mixes_them_to_the_same_logits(variety: Path, tmp_path: Path) -> None:
    """peft's own way of mixing adapters, `add_weighted_adapter`, merged, against the engine's answers."""
    names, weights = ("plain", "rslora", "patterns"), (0.5, 0.2, 0.3)
    convert_soup({name: variety / name for name in names}, tmp_path / "out")
    model: Any = PeftModel.from_pretrained(tiny_llama(), str(variety / names[0]), adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(str(variety / name), adapter_name=name)
    model.base_model.add_weighted_adapter(list(names), list(weights), "mixed", combination_type="cat")
    model.set_adapter("mixed")
    merged = model.merge_and_unload()
    prompt = [3, 14, 15, 9, 26]
    expected = merged.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    engine = Engine.load(EngineConfig(model=variety / "base", adapter=tmp_path / "out"))
    params = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
    (answer,) = engine.generate([Request(prompt, weights, params)])
    assert answer.token_ids == expected[0, len(prompt) :].tolist()


def test_more_columns_than_the_kernels_take_are_served_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    for seed, name in enumerate(("a", "b")):
        save_lora(tmp_path / name, "../base", seed=seed, r=130, lora_alpha=1, target_modules=["q_proj", "down_proj"])
    check_against_peft(tmp_path, ("a", "b"), tmp_path / "out")
    assert Adapter.read(tmp_path / "out").config.rank == 260
    assert not caplog.records  # a CPU has no other path
    for rank, device, said in ((260, "cuda", True), (256, "cuda", False), (260, "cpu", False)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            loader._warn_of_rank(rank, torch.device(device))  # pyright: ignore[reportPrivateUsage]
        assert [record.getMessage() for record in caplog.records] == [
            "the adapter has 260 columns, more than the kernels' 256: its layers run the slower reference path"
        ] * said


def copied(tmp_path: Path) -> tuple[Path, Path]:
    """The golden LoRA adapters in a place where they may be damaged, with their base beside them."""
    for name, source in (("helpful", HELPFUL), ("concise", CONCISE)):
        shutil.copytree(source, tmp_path / "soup" / name)
    shutil.copytree(BASE, tmp_path / "base")
    return tmp_path / "soup" / "helpful", tmp_path / "soup" / "concise"


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"

CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "other_type": ({"peft_type": "LOHA"}, "peft_type is 'LOHA', not 'LORA'"),
    "panacea": ({"peft_type": "PANACEA"}, "peft_type is 'PANACEA', not 'LORA'"),
    "task": ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
    "dora": ({"use_dora": True}, "it is a DoRA adapter"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    "bias": ({"bias": "lora_only"}, "it trained biases of the base model"),
    "lora_bias": ({"lora_bias": True}, "biases of its own"),
    "tokens": ({"trainable_token_indices": [1, 2]}, "embeddings of its own"),
    "parameters": ({"target_parameters": ["mlp.experts.down_proj"]}, "outside linear layers"),
    "replication": ({"layer_replication": [[0, 2], [1, 3]]}, "repeats layers"),
    "alora": ({"alora_invocation_tokens": [5]}, "only after its invocation tokens"),
    "qalora": ({"use_qalora": True}, "it uses use_qalora, which is not plain LoRA"),
    "later": ({"use_something_new": {"a": 1}}, "it uses use_something_new, which is not plain LoRA"),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, "changed the base model's weights"),
    "loftq": ({"init_lora_weights": "loftq"}, "changed the base model's weights"),
    "olora": ({"init_lora_weights": "olora"}, "changed the base model's weights"),
    "rank": ({"r": 5}, "has rank 5 in adapter_config.json, but 3 rows of A"),
    "rank_pattern": ({"rank_pattern": {"q_proj": 2}}, "has rank 2 in adapter_config.json, but 3 rows of A"),
    "rank_zero": ({"r": 0}, "a rank is at least 1"),
    "alpha": ({"lora_alpha": "6"}, "lora_alpha of .* is not a number"),
    "alpha_nan": ({"lora_alpha": float("nan")}, "lora_alpha of .* is not a number"),
    "pattern": ({"alpha_pattern": ["q_proj"]}, "alpha_pattern is not an object of name patterns"),
    "untargeted": ({"target_modules": ["q_proj", "v_proj"]}, "not in its target_modules: peft would ignore"),
    "excluded": ({"exclude_modules": ["v_proj"]}, "in its exclude_modules"),
    "other_layers": ({"layers_to_transform": [0, 1]}, "not in its layers_to_transform"),
    "no_base": ({"base_model_name_or_path": None}, "does not name its base model"),
    "other_base": ({"base_model_name_or_path": "somebody/base"}, "have different base models"),
    "revision": ({"revision": "abc123"}, "at revision abc123"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_what_would_not_be_exact_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    changes, message = CONFIGS[case]
    helpful, concise = copied(tmp_path)
    edit_config(helpful, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_soup({"helpful": helpful, "concise": concise}, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(helpful) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "soup"]


Change = Callable[[dict[str, torch.Tensor]], object]


def put(name: str, value: torch.Tensor) -> Change:
    return lambda tensors: tensors.__setitem__(name, value)


def rename(old: str, new: str) -> Change:
    return lambda tensors: tensors.__setitem__(new, tensors.pop(old))


TENSORS: dict[str, tuple[Change, str]] = {
    "dora": (put(f"{Q_PROJ}.lora_magnitude_vector.weight", torch.ones(96)), "it is a DoRA adapter"),
    "bias": (put(f"{Q_PROJ}.lora_B.bias", torch.ones(96)), "biases of its own"),
    "embedding": (
        put("base_model.model.model.embed_tokens.lora_embedding_A", torch.ones(3, 354)),
        "adapts an embedding",
    ),
    "head": (put("base_model.model.lm_head.weight", torch.ones(354, 96)), "a whole tensor of its own"),
    "other": (put(f"{Q_PROJ}.lora_diag.weight", torch.ones(3)), "is not plain LoRA"),
    "no_b": (lambda tensors: tensors.pop(f"{Q_PROJ}.lora_B.weight"), "q_proj has no lora_B"),
    "nan": (put(f"{Q_PROJ}.lora_A.weight", torch.full((3, 96), torch.nan)), "values that are not finite"),
    "convolution": (put(f"{Q_PROJ}.lora_A.weight", torch.ones(3, 96, 1, 1)), "no matrix of floats"),
    "width": (put(f"{Q_PROJ}.lora_A.weight", torch.ones(3, 95)), "maps 95 to 96 features, the base model's 96 to 96"),
    "no_such_layer": (
        lambda t: [rename(f"{Q_PROJ}.lora_{p}.weight", f"{Q_PROJ.replace('0', '7')}.lora_{p}.weight")(t) for p in "AB"],
        "layers.7.self_attn.q_proj, which is not a linear layer inside the base",
    ),
    "nothing": (lambda tensors: tensors.clear(), "holds no tensors"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_are_not_plain_lora_are_refused_by_name(tmp_path: Path, case: str) -> None:
    change, message = TENSORS[case]
    helpful, concise = copied(tmp_path)
    tensors = load_file(helpful / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, helpful / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        convert_soup({"helpful": helpful, "concise": concise}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_output_head_is_refused(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path / "base")
    save_lora(tmp_path / "a", "../base", r=2, target_modules=["lm_head"])
    save_lora(tmp_path / "b", "../base", r=2, target_modules=["q_proj"])
    with pytest.raises(CheckpointError, match="adapts lm_head, which is not a linear layer inside"):
        convert_soup({"a": tmp_path / "a", "b": tmp_path / "b"}, tmp_path / "out")


def test_pickled_adapters_are_not_read(tmp_path: Path) -> None:
    helpful, concise = copied(tmp_path)
    (helpful / "adapter_model.safetensors").rename(helpful / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="other formats are not read"):
        convert_soup({"helpful": helpful, "concise": concise}, tmp_path / "out")


def test_a_base_whose_weights_are_cut_off_is_refused(tmp_path: Path) -> None:
    base = shutil.copytree(BASE, tmp_path / "base")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    with pytest.raises(CheckpointError, match="base cannot be loaded: "):
        convert_soup({"helpful": HELPFUL, "concise": CONCISE}, tmp_path / "out", model=str(base))
    assert not (tmp_path / "out").exists()


def test_a_base_that_is_named_wins_over_what_the_adapters_say(tmp_path: Path) -> None:
    helpful, concise = copied(tmp_path)
    edit_config(helpful, base_model_name_or_path="somebody/base-4bit")
    edit_config(concise, base_model_name_or_path=None)
    convert_soup({"helpful": helpful, "concise": concise}, tmp_path / "out", model=str(tmp_path / "base"))
    assert Adapter.read(tmp_path / "out").config.base_model == "../base"


def test_how_many_adapters_make_a_soup(tmp_path: Path) -> None:
    for count in (1, 11):
        with pytest.raises(ConfigError, match=f"two to 10 adapters, not {count}"):
            convert_soup({f"d{index}": HELPFUL for index in range(count)}, tmp_path / "out")
    with pytest.raises(PreferenceError, match="dimension name 'a b'"):
        convert_soup({"a b": HELPFUL, "c": CONCISE}, tmp_path / "out")


def test_a_result_that_differs_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One alpha/r of 21 modules is wrong by a tenth."""
    right = soup.stack

    def wrong(*arguments: Any) -> Adapter:
        adapter = right(*arguments)
        adapter.modules["model.layers.1.mlp.down_proj"].e.mul_(1.1)
        return adapter

    monkeypatch.setattr(soup, "stack", wrong)
    with pytest.raises(
        CheckpointError, match="the conversion is wrong and nothing was written: logits before and after"
    ):
        convert_soup({"helpful": HELPFUL, "concise": CONCISE}, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["panacea", "convert", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


BOTH = ("--adapter", f"helpful={HELPFUL}", "--adapter", f"concise={CONCISE}")


def test_the_command_prints_the_largest_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "soup", *BOTH, "--default", "helpful=3,concise=1", "--out", str(tmp_path / "out")) == 0
    printed, progress = capfd.readouterr()
    assert "Checked at 3 preferences: the largest difference of logits before and after is " in printed
    assert f"panacea serve --adapter {tmp_path / 'out'}" in printed
    assert "logits after" in progress
    assert Adapter.read(tmp_path / "out").config.space.default == (0.75, 0.25)


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no_adapters": ((), "--adapter"),
    "one": (("--adapter", f"helpful={HELPFUL}"), "two to 10 adapters, not 1"),
    "no_name": (("--adapter", str(HELPFUL)), "write NAME=DIR"),
    "twice": (("--adapter", f"a={HELPFUL}", "--adapter", f"a={CONCISE}"), "the dimension a has an adapter already"),
    "no_folder": (("--adapter", "a=/no/such/folder", "--adapter", f"b={CONCISE}"), "neither a folder nor a hub id"),
    "no_adapter": (("--adapter", f"a={BASE}", "--adapter", f"b={CONCISE}"), "is not an adapter"),
    "no_base": ((*BOTH, "--model", "/no/such/folder"), "neither a folder nor a hub id"),
    "wrong_base": ((*BOTH, "--model", str(HELPFUL)), "cannot be loaded"),
    "default": ((*BOTH, "--default", "helpful"), "write name=weight"),
    "default_unknown": ((*BOTH, "--default", "harmless=1"), "unknown dimension"),
    "default_both": ((*BOTH, "--default", "helpful=1,2"), "name every weight or none"),
    "default_twice": ((*BOTH, "--default", "helpful=1,helpful=2"), "helpful is given twice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_one_clear_line_and_exit_code_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, message = WRONG[case]
    assert run_cli(monkeypatch, "soup", *arguments, "--out", str(tmp_path / "out")) == 2
    line = capfd.readouterr().err.splitlines()[-1].rpartition("\r")[2]
    assert line.startswith("panacea: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine", "utf-8")
    assert run_cli(monkeypatch, "soup", *BOTH, "--out", str(tmp_path / "out")) == 2
    assert "exists already; --overwrite replaces it" in capfd.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]
    (tmp_path / "file").write_text("", "utf-8")
    assert run_cli(monkeypatch, "soup", *BOTH, "--out", str(tmp_path / "file" / "out")) == 2
    assert "cannot be written" in capfd.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run_cli(monkeypatch, "soup", *BOTH, "--out", str(tmp_path / "empty")) == 0


@pytest.mark.slow
def test_a_server_answers_from_a_soup_as_the_golden_files_say(golden_soup: Path) -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text("utf-8"))["soup"]
    with serving("--adapter", str(golden_soup)) as (_, client):
        for entry in expected:
            for output in entry["outputs"]:
                body = {
                    "messages": [{"role": "user", "content": output["prompt"]}],
                    "temperature": 0,
                    "max_tokens": 24,
                    "preference": entry["preference"],
                }
                answer = client.post("/v1/chat/completions", json=body).json()
                assert answer["choices"][0]["message"]["content"] == output["greedy_text"]
