"""`panacea inspect`: its numbers against dense singular value decompositions, its table, its picture."""

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console

from panacea.model.adapter import Adapter, LowRank
from panacea.model.adapter_config import AdapterConfig
from panacea.preference import Dimension, PreferenceSpace
from panacea_commands import main as cli
from panacea_train.convert.adapter_inspection import Inspection, table
from panacea_train.convert.inspection_picture import draw
from tests.convert.adapters import HELPFUL
from tests.golden_files import ADAPTER


def test_singular_values_are_those_of_what_is_added() -> None:
    adapter = Adapter.read(ADAPTER)
    inspection = Inspection.read(ADAPTER)
    assert inspection.groups == {"(shared)": [0, 1, 2, 3], "helpful": [4], "harmless": [5], "concise": [6]}
    assert [module.name for module in inspection.modules] == list(adapter.modules)
    for module in inspection.modules:
        a, b, e = (tensor.double() for tensor in adapter.modules[module.name])
        assert module.shape == (a.shape[1], b.shape[0])
        assert module.e == e.tolist()
        for group, columns in inspection.groups.items():
            added = 2.0 * (b[:, columns] * e[columns]) @ a[columns]
            expected = torch.linalg.svdvals(added)[: len(columns)]
            torch.testing.assert_close(torch.tensor(module.singular_values[group]).double(), expected)


def write(folder: Path, modules: list[str], names: list[str], columns: tuple[int, ...]) -> Path:
    """A small adapter whose numbers do not matter."""
    torch.manual_seed(0)
    rank = len(columns)
    low_rank = {name: LowRank(torch.randn(rank, 6), torch.randn(4, rank), torch.randn(rank)) for name in modules}
    space = PreferenceSpace(
        tuple(Dimension(name) for name in names), (1.0,) * len(names), {"even": (1.0,) * len(names)}
    )
    Adapter(AdapterConfig("some/base", 0.5, ("q_proj", "v_proj"), columns, space), low_rank).write(folder)
    return folder


def test_layers_are_in_the_order_of_their_numbers_and_what_has_none_is_last(tmp_path: Path) -> None:
    modules = ["model.layers.10.self_attn.q_proj", "model.layers.2.self_attn.v_proj", "projector.q_proj"]
    inspection = Inspection.read(write(tmp_path, modules, ["a", "b"], (0, 1, 1)))
    assert inspection.layers == [2, 10, None]
    assert set(inspection.kinds) == {"self_attn.q_proj", "self_attn.v_proj", "projector.q_proj"}
    values = {module.name: module.singular_values["b"][0] for module in inspection.modules}
    assert inspection.largest("b", 10) == values[modules[0]]
    assert inspection.largest("b", 10, "self_attn.v_proj") == 0
    draw(inspection, tmp_path / "picture.png")
    assert "none" in shown(inspection)


def test_a_dimension_that_is_called_shared_is_not_the_shared_columns(tmp_path: Path) -> None:
    inspection = Inspection.read(write(tmp_path, ["layers.0.q_proj"], ["shared"], (-1, 0)))
    assert inspection.groups == {"(shared)": [0], "shared": [1]}


def shown(inspection: Inspection, **options: Any) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table(inspection, **options))
    return captured.get()


def test_the_table_says_what_the_adapter_is_layer_by_layer() -> None:
    inspection = Inspection.read(ADAPTER)
    text = shown(inspection)
    assert "helpful (how helpful the answer is), harmless" in text
    assert "7: 4 (shared), 1 helpful, 1 harmless, 1 concise" in text
    assert "helpful 0.4, harmless 0.3, concise 0.3" in text
    assert "21 in 3 layers" in text
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["0", "1", "2"]
    assert f"{inspection.largest('harmless', 2):#.3g}" in rows[2]
    by_module = shown(inspection, by_module=True)
    module = inspection.modules[0]
    (row,) = (line for line in by_module.splitlines() if module.name in line)
    assert f"{module.shape[0]} → {module.shape[1]}" in row
    assert all(f"{value:#.3g}" in row for value in module.singular_values["(shared)"])


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["panacea", "inspect", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_the_command_prints_draws_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    picture, numbers = tmp_path / "picture.svg", tmp_path / "numbers.json"
    assert run_cli(monkeypatch, str(ADAPTER), "--picture", str(picture), "--json", str(numbers)) == 0
    assert "its largest singular value" in capfd.readouterr().out
    drawn = ElementTree.parse(picture).getroot()  # noqa: S314 (we wrote it)
    # A panel for each group, each with one image, and the scale of colours.
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}image"))) == 5
    written = json.loads(numbers.read_text("utf-8"))
    assert written["columns"]["concise"] == [6]
    assert written["scaling"] == 2
    assert len(written["modules"]) == 21
    q_proj = written["modules"]["model.layers.0.self_attn.q_proj"]
    assert len(q_proj["E"]) == 7
    assert len(q_proj["singular_values"]["(shared)"]) == 4


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no_folder": (("/no/such/folder",), "neither a folder nor a hub id"),
    "lora": ((str(HELPFUL),), "peft_type is 'LORA', not 'PANACEA': `panacea convert soup` turns LoRA adapters into"),
    "suffix": ((str(ADAPTER), "--picture", "picture.gif"), "must end in .svg, .png or .pdf"),
    "picture": (
        (str(ADAPTER), "--picture", "/no/such/folder/a.svg"),
        "--picture /no/such/folder/a.svg cannot be written",
    ),
    "json": ((str(ADAPTER), "--json", "/no/such/folder/a.json"), "--json /no/such/folder/a.json cannot be written"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_one_clear_line_and_exit_code_2(
    case: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, message = WRONG[case]
    assert run_cli(monkeypatch, *arguments) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("panacea: error: ")
    assert message in line


def test_without_matplotlib_a_picture_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("panacea_train.convert.inspection_picture", "panacea_train.charts.picture_file"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run_cli(monkeypatch, str(ADAPTER), "--picture", str(tmp_path / "a.svg")) == 2
    assert "pip install 'panacea-server[plot]'" in capfd.readouterr().err
