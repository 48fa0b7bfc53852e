"""The whole pipeline with a toy model: every stage runs, resumes, and writes what the server reads."""

import json
from pathlib import Path

import pytest

from panacea.errors import ConfigError, OutputError
from panacea_lab.demo.demo_pipeline import train_demo
from panacea_lab.demo.demo_settings import DemoSettings
from panacea_lab.demo.job_stages import STATE_FILE, JobStage, StageLog, run_stages
from panacea_train.output_folder import locked

SETTINGS = DemoSettings.tiny()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    train_demo(out, seed=1, settings=SETTINGS, show_progress=False)
    return out


@pytest.mark.slow
def test_pipeline_writes_base_adapter_and_evaluation(trained: Path) -> None:
    config = json.loads((trained / "adapter/adapter_config.json").read_text("utf-8"))
    assert config["peft_type"] == "PANACEA"
    assert config["base_model_name_or_path"] == "../base"
    assert config["preference_columns"] == [-1] * 8 + [0, 1, 2]
    assert [d["name"] for d in config["preference_dimensions"]] == ["helpful", "harmless", "concise"]
    assert len(config["example_prompts"]) == 8
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (trained / "base" / name).stat().st_mode & 0o044 == 0o044
    generation = json.loads((trained / "base/generation_config.json").read_text("utf-8"))
    assert generation["temperature"] == 0.7


@pytest.mark.slow
def test_a_second_run_does_nothing_again(trained: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    train_demo(trained, seed=1, settings=SETTINGS, show_progress=False)
    after = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before[path]} <= {trained / "work" / STATE_FILE}


@pytest.mark.slow
def test_another_seed_does_not_continue_the_folder(trained: Path) -> None:
    with pytest.raises(ConfigError, match="another seed or other settings"):
        train_demo(trained, seed=2, settings=SETTINGS, show_progress=False)


def test_an_interrupted_job_goes_on_with_the_interrupted_stage(tmp_path: Path) -> None:
    ran: list[str] = []

    def stages(fails: bool) -> list[JobStage]:
        def first(report: object) -> None:
            ran.append("first")

        def second(report: object) -> None:
            if fails:
                raise KeyboardInterrupt
            ran.append("second")

        return [JobStage("first", 0.5, first), JobStage("second", 0.5, second)]

    with pytest.raises(KeyboardInterrupt):
        run_stages(stages(fails=True), StageLog(tmp_path, "it"), show_progress=False)
    log = StageLog(tmp_path, "it")
    run_stages(stages(fails=False), log, show_progress=False)
    assert ran == ["first", "second"]
    assert set(log.seconds) == {"first", "second"}


def test_a_damaged_stage_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text("{", "utf-8")
    with pytest.raises(ConfigError, match="cannot use"):
        StageLog(tmp_path, "it")


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(ConfigError, match="cannot use"):
        StageLog(tmp_path / "file" / "work", "it")


def test_a_folder_with_somebody_elses_base_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_text("a stranger's", "utf-8")
    with pytest.raises(ConfigError, match="base is not from an interrupted run: choose another --out"):
        train_demo(tmp_path, settings=SETTINGS, show_progress=False)
    assert (tmp_path / "base" / "model.safetensors").read_text("utf-8") == "a stranger's"
    with locked(tmp_path / "taken"), pytest.raises(OutputError, match="another run writes to"):
        train_demo(tmp_path / "taken", settings=SETTINGS, show_progress=False)
