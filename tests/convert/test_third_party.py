"""`panacea convert third-party` against the golden files, and against the other implementation's own merged weights."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import CheckpointError, ConfigError, PreferenceError
from panacea.model.adapter import Adapter
from panacea_commands import main as cli
from panacea_train.convert import third_party
from panacea_train.convert.third_party import convert_third_party
from tests.engine.asking import requests
from tests.golden_files import ADAPTER, BASE, GOLDEN, golden
from tests.train.tiny import tiny_llama

SOURCE = GOLDEN / "third_party"
NAMES = ("helpful", "harmless", "concise")
GREEDY = SamplingParams(max_tokens=24, temperature=0)

Tensors = dict[str, torch.Tensor]


def check_golden(out: Path) -> None:
    """What was converted gives all golden answers, and its base is the golden base to the bit."""
    engine = Engine.load(EngineConfig(model=out / "base", adapter=out / "adapter", dtype="float32"))
    entries = [*golden("panacea"), *golden("base")]
    answers = engine.generate(requests([e.prompt_ids for e in entries], [e.preference for e in entries], GREEDY))
    assert [answer.token_ids for answer in answers] == [e.greedy_ids for e in entries]
    written: Tensors = {}
    for path in (out / "base").glob("*.safetensors"):
        written |= load_file(path)
    expected = load_file(BASE / "model.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in written)


def test_the_golden_checkpoint_is_taken_apart_exactly(tmp_path: Path) -> None:
    agreement = convert_third_party(
        SOURCE, NAMES, tmp_path / "out", default={"helpful": 4, "harmless": 3, "concise": 3}
    )
    assert agreement.difference < 1e-4 * agreement.largest
    check_golden(tmp_path / "out")
    adapter, expected = Adapter.read(tmp_path / "out" / "adapter"), Adapter.read(ADAPTER)
    assert adapter.modules.keys() == expected.modules.keys()
    for name, low_rank in adapter.modules.items():
        assert all(torch.equal(*pair) for pair in zip(low_rank, expected.modules[name], strict=True))
    assert adapter.config.scaling == expected.config.scaling == 2
    assert adapter.config.preference_columns == expected.config.preference_columns
    assert adapter.config.space.default == expected.config.space.default
    assert Path(str(adapter.config.base_of(tmp_path / "out" / "adapter"))).samefile(tmp_path / "out" / "base")


def test_configs_tokenizer_and_template_come_along_and_nothing_of_the_adapter(tmp_path: Path) -> None:
    convert_third_party(SOURCE, NAMES, tmp_path / "out")
    written = {path.name: path for path in (tmp_path / "out" / "base").iterdir()}
    assert written.keys() == {path.name for path in BASE.iterdir()}
    for name, path in written.items():
        assert path.stat().st_mode & 0o044 == 0o044
        if name != "model.safetensors":
            assert path.read_bytes() == (BASE / name).read_bytes()


def source_tensors() -> Tensors:
    return load_file(SOURCE / "model.safetensors")


def write_source(folder: Path, tensors: Tensors, config: dict[str, Any] | None, shards: int = 1) -> Path:
    """A checkpoint with the golden base's config and tokenizer."""
    shutil.copytree(BASE, folder)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for shard in range(shards):
        part = {name: tensors[name].contiguous() for name in names[shard::shards]}
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_file(part, folder / file)
    if config is not None:
        (folder / "panacea_config.json").write_text(json.dumps(config), "utf-8")
    return folder


def test_shards_stay_shards_with_an_index_of_what_is_left(tmp_path: Path) -> None:
    config = json.loads((SOURCE / "panacea_config.json").read_text("utf-8")) | {"objective_names": NAMES}
    source = write_source(tmp_path / "source", source_tensors(), config, shards=3)
    (source / "model.safetensors.index.json").write_text('{"weight_map": {"old": "entries"}}', "utf-8")
    convert_third_party(source, (), tmp_path / "out")
    check_golden(tmp_path / "out")
    index = json.loads((tmp_path / "out" / "base" / "model.safetensors.index.json").read_text("utf-8"))
    assert len(set(index["weight_map"].values())) == 3
    assert index["metadata"]["total_size"] == 4 * sum(p.numel() for p in load_file(BASE / "model.safetensors").values())
    assert Adapter.read(tmp_path / "out" / "adapter").config.space.names == NAMES


def in_blocks(*, suffix: str = "") -> Tensors:
    """The golden checkpoint in the other layout: one block of preference columns, the last preference left behind."""
    tensors: Tensors = {}
    for name, tensor in source_tensors().items():
        module, _, last = name.rpartition(".")
        if last == "lora_right_weight":
            tensors[f"{module}.lora_A{suffix}"] = tensor.t()
        elif last == "lora_left_weight":
            tensors[f"{module}.lora_B{suffix}"] = tensor.t()
        elif last == "lora_diagonal_weight":
            tensors[f"{module}.lora_diag"] = torch.cat([tensor[0], torch.tensor([0.9, 0.05, 0.05])])[:, None]
        elif last == "weight" and f"{module}.pref_scaling" in source_tensors():
            tensors[f"{module}.base_layer.weight"] = tensor
        elif last != "pref_diagonal_weight":
            tensors[name] = tensor
    return tensors


@pytest.mark.parametrize("suffix", ["", ".weight"])
def test_the_layout_with_blocks_gives_the_golden_answers_too(tmp_path: Path, suffix: str) -> None:
    config = {"r": 4, "pref_r": 1, "lora_alpha": 8, "pref_dim": 3}
    source = write_source(tmp_path / "source", in_blocks(suffix=suffix), config)
    convert_third_party(source, NAMES, tmp_path / "out")
    check_golden(tmp_path / "out")


def test_the_factor_may_be_said_where_no_config_tells_it(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", in_blocks(), None)
    with pytest.raises(ConfigError, match=r"give it with --factor .* now there are 4\)"):
        convert_third_party(source, NAMES, tmp_path / "out")
    convert_third_party(source, NAMES, tmp_path / "out", factor=2.0)
    check_golden(tmp_path / "out")


MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.v_proj")


@pytest.mark.parametrize("splits", [0, 1])
def test_blocks_of_preference_columns_give_the_weights_that_their_own_code_merges(tmp_path: Path, splits: int) -> None:
    """Two dimensions, r = 3 and two blocks; after a split one module has r = 2 and three blocks."""
    torch.manual_seed(0)
    m, factor = 2, 32 / 3
    base = tiny_llama()
    base.save_pretrained(tmp_path / "source")
    tensors = load_file(tmp_path / "source" / "model.safetensors")
    shapes = [(3, 2), (3 - splits, 2 + splits), (3, 2)]
    for module, (k, p) in zip(MODULES, shapes, strict=True):
        out, inside = tensors[f"{module}.weight"].shape
        tensors[f"{module}.base_layer.weight"] = tensors.pop(f"{module}.weight")
        tensors[f"{module}.lora_A"] = torch.randn(k + p * m, inside) * 0.3
        tensors[f"{module}.lora_B"] = torch.randn(out, k + p * m) * 0.3
        tensors[f"{module}.lora_diag"] = torch.randn(k + p * m, 1)
        tensors[f"{module}.pref_scaling"] = torch.randn(p)
    save_file(tensors, tmp_path / "source" / "model.safetensors")
    config = {"peft": "panacea", "r": 3, "pref_r": 2, "lora_alpha": 32, "pref_dim": 2}
    (tmp_path / "source" / "adapter_config.json").write_text(json.dumps(config), "utf-8")

    agreement = convert_third_party(tmp_path / "source", ("warm", "brief"), tmp_path / "out")
    assert agreement.difference < 1e-4 * agreement.largest

    adapter = Adapter.read(tmp_path / "out" / "adapter")
    assert adapter.config.preference_columns == (-1,) * 3 + (0, 1) * (2 + splits)
    for preference in ((1.0, 0.0), (0.3, 0.7)):
        w = torch.tensor(adapter.config.column_weights(preference), dtype=torch.float64)
        for module, (k, p) in zip(MODULES, shapes, strict=True):
            # What set_pref_vec and get_delta_weights do there.
            diagonal = tensors[f"{module}.lora_diag"].double().clone()
            diagonal[k:] = torch.tensor(preference, dtype=torch.float64).unsqueeze(1).repeat(p, 1)
            diagonal[k:] *= tensors[f"{module}.pref_scaling"].double().unsqueeze(1).repeat(1, m).view(-1, 1)
            own = tensors[f"{module}.lora_B"].double() @ (tensors[f"{module}.lora_A"].double() * diagonal) * factor
            a, b, e = (tensor.double() for tensor in adapter.modules[module])
            torch.testing.assert_close(adapter.config.scaling * (b * (e * w)) @ a, own, rtol=1e-6, atol=1e-6)


def put(name: str, value: torch.Tensor) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.__setitem__(name, value)


def drop(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(name)


Q_PROJ = "model.layers.0.self_attn.q_proj"
DAMAGES: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "unknown": (put(f"{Q_PROJ}.lora_mix", torch.ones(2)), "q_proj.lora_mix does not belong to a known layout"),
    "missing": (drop(f"{Q_PROJ}.pref_scaling"), "q_proj has lora_diagonal_weight, .*, which is not a known layout"),
    "columns": (put(f"{Q_PROJ}.lora_right_weight", torch.ones(96, 6)), r"has shape \(96, 6\), not \(any, 7\)"),
    "rows": (put(f"{Q_PROJ}.lora_left_weight", torch.ones(96, 7)), r"has shape \(96, 7\), not \(7, any\)"),
    "diagonal": (put(f"{Q_PROJ}.lora_diagonal_weight", torch.ones(4)), r"has shape \(4,\), not \(1, 4\)"),
    "scalars": (put(f"{Q_PROJ}.pref_scaling", torch.ones(3)), r"has shape \(3,\), not \(1\)"),
    "nan": (put(f"{Q_PROJ}.pref_scaling", torch.full((1,), torch.nan)), "pref_scaling has values that are not finite"),
    "base": (drop(f"{Q_PROJ}.weight"), r"has no tensor for model.layers.0.self_attn.q_proj.weight"),
    "width": (put(f"{Q_PROJ}.lora_right_weight", torch.ones(95, 7)), "maps 95 to 96 features, the base model's 96"),
    "nothing": (
        lambda t: [t.pop(name) for name in list(t) if ".lora_" in name or ".pref_" in name],
        "has no tensors of an adapter",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    change, message = DAMAGES[case]
    tensors = source_tensors()
    change(tensors)
    config = json.loads((SOURCE / "panacea_config.json").read_text("utf-8"))
    source = write_source(tmp_path / "source", tensors, config)
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_third_party(source, NAMES, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_dimensions_must_be_named_and_counted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name them with --dimension"):
        convert_third_party(SOURCE, (), tmp_path / "out")
    with pytest.raises(ConfigError, match="has 3 dimensions, but 2 are named: a, b"):
        convert_third_party(SOURCE, ("a", "b"), tmp_path / "out")
    with pytest.raises(PreferenceError, match="occurs twice"):
        convert_third_party(SOURCE, ("a", "b", "a"), tmp_path / "out")


def test_pickled_checkpoints_are_not_read(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "source")
    (tmp_path / "source" / "model.safetensors").rename(tmp_path / "source" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="other formats are not read"):
        convert_third_party(tmp_path / "source", NAMES, tmp_path / "out")


def test_a_result_that_differs_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dimensions are exchanged in one module of 21."""
    right = third_party.steerable

    def wrong(*arguments: Any) -> Adapter:
        adapter = right(*arguments)
        a, b, _ = adapter.modules["model.layers.2.mlp.up_proj"]
        a[[4, 5]], b[:, [4, 5]] = a[[5, 4]], b[:, [5, 4]]
        return adapter

    monkeypatch.setattr(third_party, "steerable", wrong)
    with pytest.raises(CheckpointError, match="the conversion is wrong and nothing was written"):
        convert_third_party(SOURCE, NAMES, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["panacea", "convert", "third-party", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


DIMENSIONS = ("--dimension", "helpful", "--dimension", "harmless", "--dimension", "concise")


def test_the_command_converts_and_prints_the_largest_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_cli(monkeypatch, str(SOURCE), *DIMENSIONS, "--default", "4,3,3", "--out", str(out)) == 0
    printed = capfd.readouterr().out
    assert "Checked at 3 preferences: the largest difference of logits before and after is " in printed
    assert f"panacea serve --adapter {out / 'adapter'}" in printed
    assert Adapter.read(out / "adapter").config.space.default == (0.4, 0.3, 0.3)


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no_folder": (("/no/such/folder", *DIMENSIONS), "is not a model: config.json is missing"),
    "no_adapter": ((str(BASE), *DIMENSIONS), "has no tensors of an adapter"),
    "factor": ((str(SOURCE), *DIMENSIONS, "--factor", "nan"), "--factor is nan, but must be a finite number"),
    "too_few": ((str(SOURCE), *DIMENSIONS[:4]), "has 3 dimensions, but 2 are named"),
    "default": ((str(SOURCE), *DIMENSIONS, "--default", "1,2"), "2 weights instead of 3"),
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
