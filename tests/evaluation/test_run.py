"""An evaluation's folder: what is written is read again, and what does not belong together is refused."""

import csv
import shutil
from pathlib import Path

import msgspec
import pytest

from panacea.errors import ConfigError
from panacea_train.evaluation import read_run, summarise, write_run
from tests.evaluation.runs import RESAMPLES, made_up_run


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = made_up_run("mine")
    write_run(run, tmp_path)
    assert read_run(tmp_path, "mine") == run
    assert read_run(tmp_path).name == tmp_path.name
    assert run.prompts == tuple(f"Question {index}?" for index in range(6))


def test_the_answers_are_enough_to_compute_everything_again(tmp_path: Path) -> None:
    write_run(made_up_run(), tmp_path)
    run = read_run(tmp_path)
    for sweep in run.evaluation.sweeps:
        points = [point.preference for point in sweep.points]
        answers = run.sweep_answers(sweep)
        dimensions, corner = run.evaluation.dimensions, run.evaluation.reference_point
        assert summarise(dimensions, corner, sweep.temperature, points, answers, RESAMPLES) == sweep


def test_the_table_has_a_row_for_each_temperature_and_point(tmp_path: Path) -> None:
    run = made_up_run()
    write_run(run, tmp_path)
    rows = list(csv.DictReader((tmp_path / "points.csv").read_text("utf-8").splitlines()))
    points = [(sweep.temperature, point) for sweep in run.evaluation.sweeps for point in sweep.points]
    assert len(rows) == len(points) == 6
    for row, (temperature, point) in zip(rows, points, strict=True):
        assert float(row["temperature"]) == temperature
        assert (float(row["weight_helpful"]), float(row["weight_concise"])) == point.preference
        assert (float(row["reward_helpful"]), float(row["reward_concise"])) == point.rewards
        assert (float(row["standard_error_helpful"]), float(row["standard_error_concise"])) == point.standard_errors
        assert float(row["mean_words"]) == point.mean_words
        assert row["non_dominated"] == ("true" if point.non_dominated else "false")


def test_answers_that_nobody_kept_are_none(tmp_path: Path) -> None:
    write_run(msgspec.structs.replace(made_up_run(), answers=None), tmp_path)
    run = read_run(tmp_path)
    assert run.answers is None
    assert run.prompts == ()
    with pytest.raises(ConfigError, match=r"do not belong together: .* one answer for each of 36"):
        run.sweep_answers(run.evaluation.sweeps[0])


def test_what_is_no_run_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not an evaluation: evaluation\.json is missing"):
        read_run(tmp_path / "nowhere")
    whole = tmp_path / "whole"
    whole.mkdir()
    write_run(made_up_run(), whole)
    lines = (whole / "answers.jsonl").read_bytes().splitlines(keepends=True)
    damages: dict[str, tuple[str, bytes]] = {
        r"evaluation\.json cannot be read": ("evaluation.json", b'{"model": "tiny"}'),
        r"answers\.jsonl cannot be read: line 2: ": ("answers.jsonl", lines[0] + b"{nonsense\n"),
        r"answers\.jsonl cannot be read: line 1: .*`words`": ("answers.jsonl", lines[0].replace(b"words", b"sword")),
        r"answers\.jsonl cannot be read: line 1: it needs 2 rewards": (
            "answers.jsonl",
            msgspec.json.encode(msgspec.json.decode(lines[0]) | {"rewards": [1.0]}),
        ),
    }
    for index, (message, (file, content)) in enumerate(damages.items()):
        damaged = shutil.copytree(whole, tmp_path / str(index))
        (damaged / file).write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            read_run(damaged)


@pytest.mark.parametrize("kept", [slice(0, 71), slice(1, 72)], ids=["the last is missing", "the first is missing"])
def test_missing_answers_are_noticed(kept: slice) -> None:
    run = made_up_run()
    assert run.answers is not None
    assert len(run.answers) == 72
    fewer = msgspec.structs.replace(run, answers=run.answers[kept])
    sweep = run.evaluation.sweeps[-1 if kept.start == 0 else 0]
    with pytest.raises(ConfigError, match="do not belong together"):
        fewer.sweep_answers(sweep)


def test_answers_that_are_there_twice_are_noticed() -> None:
    run = made_up_run()
    assert run.answers is not None
    more = msgspec.structs.replace(run, answers=(*run.answers, run.answers[-1]))
    with pytest.raises(ConfigError, match="do not belong together"):
        more.sweep_answers(run.evaluation.sweeps[-1])
