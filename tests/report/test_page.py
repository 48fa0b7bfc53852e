"""What stands in a report, and that what models say stays text."""

from dataclasses import replace
from pathlib import Path

import pytest

from panacea.errors import ConfigError
from panacea_train.charts.number_text import MINUS
from panacea_train.evaluation import load_evaluation
from panacea_train.evaluation.comparison import Difference
from panacea_train.pareto import simplex_grid
from panacea_train.report import render_report, write_report
from tests.report.made_up import DEMO, Named, example, made_up
from tests.report.reading import Element, read

HOSTILE = (
    "<script>alert(1)</script>",
    "</style></title></svg></textarea><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "]]>-->{{ 7 * 7 }}{% raw %}&lt;b&gt;&amp;",
    "\u202egnp.exe\u2066 \u200f",
    "long" * 400,
    "one\n\n  two\r\n\tthree",
    "nul\x00bell\x07escape\x1b[31m",
)


def texts(page: Element, tag: str, *classes: str) -> list[str]:
    return [each.words for each in page.all(tag, *classes)]


def test_the_demos_report_says_what_was_asked_and_found() -> None:
    evaluation = load_evaluation(DEMO)
    page = read(render_report([Named("demo", evaluation)]))
    assert page.one("head").one("title").text == "demo: evaluation"
    assert page.one("h1").text == "demo"
    facts = dict(zip(texts(page.one("dl", "facts"), "dt"), texts(page.one("dl", "facts"), "dd"), strict=True))
    assert facts["Model"] == evaluation.model
    assert facts["Measured"] == evaluation.created
    assert facts["Prompts"] == str(evaluation.prompts)
    assert facts["Dimensions"] == "helpful, harmless, concise"
    assert texts(page, "h2") == ["Temperature 0.7", "Temperature 0", "Answers", "How it was measured"]
    for sweep, section in zip(evaluation.sweeps, page.all("section"), strict=False):
        tiles = {tile.one("h4").text: tile.one("p", "value").words for tile in section.all("li", "tile")}
        low, high = sweep.hypervolume_interval
        assert tiles["hypervolume"] == f"{sweep.hypervolume:.3f} {low:.3f} to {high:.3f}"
        assert {f"Spearman: {name}" for name in evaluation.dimensions} < set(tiles)
        assert tiles["non-dominated and distinct"] == "15 non-dominated 15 distinct of 15 points"
        numbers = section.one("details", "numbers")
        first = numbers.all("tr")[1]
        point = sweep.points[0]
        assert first.one("th").words == "helpful 100%"
        assert texts(first, "td")[0] == f"{point.rewards[0]:.3f} ± {point.standard_errors[0]:.3f}"
        assert len(numbers.all("tr")) == 1 + len(sweep.points)
    method = page.all("section")[-1].text
    for note in evaluation.notes.values():
        assert note in method
    assert "second turns spearman harmless" in method


def test_every_anchor_leads_somewhere() -> None:
    page = read(render_report([made_up(temperatures=(0.7, 0.0))]))
    targets = {each.attributes["id"] for each in page.everything() if "id" in each.attributes}
    assert {link.attributes["href"][1:] for link in page.all("a")} == targets


def test_it_needs_nothing_else() -> None:
    page = read(render_report([Named("demo", load_evaluation(DEMO))]))
    assert not {each.tag for each in page.everything()} & {"script", "link", "img", "iframe", "object", "base", "form"}
    for each in page.everything():
        assert not {"src", "srcset", "xlink:href", "action"} & set(each.attributes)
        assert each.attributes.get("href", "#").startswith("#")
    assert "url(" not in page.one("style").text
    assert "@import" not in page.one("style").text


def test_tables_say_what_their_headings_belong_to() -> None:
    page = read(render_report([made_up("one"), made_up("two")]))
    assert page.all("table")
    for table in page.all("table"):
        assert all(each.attributes["scope"] in ("row", "col") for each in table.all("th"))
    for picture in page.all("svg"):
        assert picture.attributes.get("aria-hidden") == "true" or picture.attributes.get("aria-label")


@pytest.mark.slow
@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_others_wrote_stays_text(hostile: str) -> None:
    grid = simplex_grid(3, 4)
    calm = made_up(dimensions=("a", hostile, "c"), examples=[example(hostile, grid, hostile)])
    run = Named(
        hostile,
        replace(calm.evaluation, model=hostile, created=hostile, notes={hostile: hostile}, figures={hostile: 1.0}),
    )
    expected = hostile.translate({code: 0x2400 + code for code in (0, 7, 0x1B)}).replace("\r\n", "\n")
    ordinary = read(render_report([made_up()]))
    for page in (read(render_report([run])), read(render_report([run, Named("other", run.evaluation)]))):
        assert {each.tag for each in page.everything()} <= {each.tag for each in ordinary.everything()} | {"caption"}
        assert not [each for each in page.everything() if any(name.startswith("on") for name in each.attributes)]
        answers = [each for each in page.all("div", "answer") if "short" not in each.classes]
        assert {each.text.replace("\r\n", "\n") for each in answers} == {expected}
        assert page.one("h3", "prompt").text.replace("\r\n", "\n") == expected
        assert "49" not in page.one("h1").text


def test_half_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    write_report([made_up(examples=[example("\ud800?", simplex_grid(3, 1))])], tmp_path / "report.html")
    assert "&#55296;?" in (tmp_path / "report.html").read_text(encoding="utf-8")


# Answers.


def test_vertices_come_first_and_the_rest_is_folded() -> None:
    page = read(render_report([made_up()]))
    card = page.one("article", "exchange")
    first, rest = card.all("table", "answers")
    assert texts(first.one("tbody"), "th") == ["helpful 100%", "harmless 100%", "concise 100%"]
    assert len(rest.one("tbody").all("tr")) == 12
    assert card.one("details").all("table", "answers") == [rest]
    assert card.one("summary").words == "At 12 other preferences"


def test_long_answers_are_folded_and_still_whole() -> None:
    text = "Boil water. " * 60
    page = read(render_report([made_up(examples=[example("How?", simplex_grid(3, 1), text)])]))
    for cell in page.one("table", "answers").one("tbody").all("td"):
        fold = cell.one("details")
        assert fold.one("div", "answer").text == text
        assert len(fold.one("span", "short").text) < 300


def test_an_answer_without_words_says_so() -> None:
    page = read(render_report([made_up(examples=[example("How?", simplex_grid(3, 1), " \n")])]))
    assert "said nothing" in page.one("table", "answers").text


def test_no_examples_are_no_error() -> None:
    assert "No example answers were kept." in read(render_report([made_up(examples=[])])).text


def test_only_prompts_that_all_models_answered_are_side_by_side() -> None:
    grid = simplex_grid(3, 1)
    one = made_up("one", examples=[example("Both?", grid, "One."), example("Alone?", grid)])
    two = made_up("two", examples=[example("Both?", grid[:2], "Two.")])
    page = read(render_report([one, two]))
    assert [each.text for each in page.all("h3", "prompt")] == ["Both?"]
    rows = page.one("article", "exchange").one("tbody").all("tr")
    said = [[[each.text for each in cell.all("div", "answer")] for cell in row.all("td")] for row in rows]
    assert said == [[["One."], ["Two."]], [["One."], ["Two."]], [["One."], []]]
    assert "was not asked" in rows[2].text
    apart = read(render_report([one, made_up("two", examples=[])]))
    assert "There is no prompt that all models have example answers to." in apart.text


# Warnings.


def warnings(*runs: Named) -> str:
    return " ".join(each.words for each in read(render_report(runs)).all("div", "notice"))


def test_a_sound_evaluation_has_no_warnings() -> None:
    assert warnings(made_up(), made_up("other")) == ""


def test_a_model_that_ignores_its_preference_is_warned_about() -> None:
    assert "15 points are non-dominated, but only 1 distinct" in warnings(made_up(strength=0))


def test_few_prompts_are_warned_about() -> None:
    assert "There was one prompt" in warnings(made_up(prompts=1))
    assert "There were 3 prompts" in warnings(made_up(prompts=3))
    assert "The models were not evaluated with the same number of prompts." in warnings(
        made_up("a"), made_up("b", prompts=20)
    )


def test_models_that_were_judged_differently_are_told() -> None:
    first, second = made_up("a"), made_up("b")
    other = Named("b", replace(second.evaluation, notes={"rewards": "helpful: rule:words"}))
    assert warnings(first, second) == ""
    assert "The models were not judged by the same rewards" in warnings(first, other)


def test_the_unit_of_the_rewards_changes_no_warning() -> None:
    assert warnings(made_up(unit=1e-6)) == warnings(made_up(unit=1e6)) == ""
    assert "only 1 distinct" in warnings(made_up(unit=1e6, strength=0))


def test_unfaithful_answers_are_warned_about() -> None:
    run = made_up("m")
    sweep = run.evaluation.sweeps[0]
    points = tuple(replace(each, faithful=0.9 if i < 2 else 0.96) for i, each in enumerate(sweep.points))
    evaluation = replace(run.evaluation, sweeps=(replace(sweep, points=points),))
    assert "At 2 of 15 points fewer than 95% of the sentences are faithful (least: 90%)" in warnings(
        replace(run, evaluation=evaluation)
    )


def test_a_hypervolume_of_nothing_is_warned_about() -> None:
    assert "No point is above the reference point" in warnings(made_up(reference=9.0))


def test_different_preferences_are_warned_about() -> None:
    assert "were not evaluated at the same preferences" in warnings(
        made_up("a"), made_up("b", preferences=simplex_grid(3, 2))
    )


def test_the_most_that_a_rank_correlation_can_be_is_said() -> None:
    page = read(render_report([Named("demo", load_evaluation(DEMO))]))
    tile = next(each for each in page.all("li", "tile") if each.one("h4").text == "Spearman: helpful")
    assert tile.one("p", "value").words.startswith("0.968")
    assert "Weights repeat: with rewards that all differ it is at most 0.968." in tile.text
    other = made_up("b", preferences=simplex_grid(3, 2))
    assert "Weights repeat" not in read(render_report([made_up("a"), other])).text, "it is another one for each"


# Comparisons.


def test_a_comparison_has_every_measure_of_every_model() -> None:
    runs = [made_up("one"), made_up("two", strength=0.3), made_up("three", strength=0.0)]
    page = read(render_report(runs))
    assert page.one("h1").text == "Comparison of 3 models"
    table = page.one("table", "measures")
    assert texts(table.one("thead"), "th") == ["measure", "one", "two", "three"]
    rows = {row.one("th").words: texts(row, "td") for row in table.one("tbody").all("tr")}
    sweeps = [run.evaluation.sweeps[0] for run in runs]
    assert [each.split()[0] for each in rows["inner product"]] == [f"{each.inner_product:.3f}" for each in sweeps]
    assert rows["distinct points"] == [f"{each.distinct} of 15" for each in sweeps]


def apart(
    measure: str,
    of: str,
    minus: str,
    difference: float,
    interval: tuple[float, float],
    temperature: float = 0.7,
    paired: bool = True,
) -> Difference:
    return Difference(temperature, measure, of, minus, difference, interval, paired)


def differences(*found: Difference) -> tuple[dict[str, list[str]], Element]:
    """Rows of the table of differences, of three models, and the table."""
    page = read(render_report([made_up("one"), made_up("two"), made_up("three")], found))
    table = page.one("table", "differences")
    return {row.one("th").words: texts(row, "td") for row in table.one("tbody").all("tr")}, page


def test_differences_are_told_from_the_first_model() -> None:
    rows, page = differences(
        apart("hypervolume", "one", "two", -0.2, (-0.3, -0.1)),
        apart("hypervolume", "three", "one", 0.05, (-0.01, 0.11)),
        apart("inner_product", "one", "three", 0.0, (0.0, 0.0)),
        apart("hypervolume", "two", "three", 9.0, (9.0, 9.0)),
        apart("hypervolume", "one", "two", 8.0, (8.0, 8.0), temperature=0.1),
    )
    assert texts(page.one("table", "differences").one("thead"), "th") == ["more than one", "two", "three"]
    assert rows == {
        "hypervolume": ["+0.200 +0.100 to +0.300", f"+0.050 {MINUS}0.010 to +0.110"],
        "inner product": ["\N{EN DASH}", "0 0 to 0"],
    }
    assert [each.text for each in page.all("span", "clear")] == ["+0.200"], "what may be chance is not bold"
    assert "Both models were resampled with the same prompts." in page.text


def test_differences_of_other_prompts_say_so() -> None:
    _, page = differences(apart("hypervolume", "one", "two", -0.2, (-0.3, -0.1), paired=False))
    assert "were resampled each with its own" in page.text


def test_without_differences_there_is_no_table_of_them() -> None:
    assert not read(render_report([made_up("one"), made_up("two")])).all("table", "differences")


def test_a_temperature_of_one_model_alone_is_still_reported() -> None:
    page = read(render_report([made_up("one"), made_up("two", temperatures=(0.7, 0.0))]))
    assert texts(page, "h2")[:2] == ["Temperature 0.7", "Temperature 0"]
    assert texts(page.all("table", "measures")[1].one("thead"), "th") == ["measure", "two"]


def test_models_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ConfigError, match="dimensions are a, b and helpful, harmless, concise"):
        render_report([made_up("one"), made_up("two", dimensions=("a", "b"))])
    with pytest.raises(ConfigError, match="different reference points"):
        render_report([made_up("one"), made_up("two", reference=0.1)])
    with pytest.raises(ConfigError, match="at least one"):
        render_report([])
    run = made_up("none")
    with pytest.raises(ConfigError, match="none cannot be reported"):
        render_report([replace(run, evaluation=replace(run.evaluation, sweeps=()))])


def test_a_report_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write the report to .*: No such file"):
        write_report([made_up()], tmp_path / "missing/report.html")
