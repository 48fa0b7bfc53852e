"""Chat templates run as in transformers, in a sandbox, and fail with an error that shows no content."""

import datetime
from pathlib import Path

import pytest

from panacea.errors import CheckpointError, RequestError
from panacea.text import chat_template
from panacea.text.chat_template import ChatMessage, ChatTemplate, read_chat_template

SECRET = "a secret"
CONVERSATION = [ChatMessage("user", SECRET)]


def render(source: str, **variables: str) -> str:
    return ChatTemplate(source, variables).render(CONVERSATION)


def test_roles_contents_and_tokens_are_there() -> None:
    source = "{{ bos_token }}{% for m in messages %}{{ m.role }}={{ m['content'] }}{% endfor %}"
    assert render(source + " {{ add_generation_prompt }}", bos_token="<s>") == "<s>user=a secret True"


def test_tools_and_documents_are_none() -> None:
    assert render("{{ tools is none and documents is none }}") == "True"


def test_a_template_reads_what_a_request_tells_it_and_nothing_overrides_its_own() -> None:
    source = "{{ bos_token }} {% set mine = 1 %}{% if think is defined and think %}thinks {{ level.of[0] }}{% endif %}"
    template = ChatTemplate(source + "{{ range(mine) | length }}{{ strftime_now('%Y') }}{{ tools }}", {"bos_token": ""})
    assert template.free_variables == {"think", "level"}
    assert "thinks 3" in template.render(CONVERSATION, {"think": True, "level": {"of": [3]}})
    assert "thinks" not in template.render(CONVERSATION, {"think": False, "level": {"of": [3]}})
    assert "thinks" not in template.render(CONVERSATION)
    shown = "{{ messages[0].content }}{{ add_generation_prompt }}{{ bos_token }}{% if eos_token %}{% endif %}"
    own = ChatTemplate(shown, {"bos_token": "<s>"})
    others = {"messages": [], "add_generation_prompt": False, "bos_token": "x"}
    assert own.render(CONVERSATION, others) == "a secretTrue<s>"
    assert not own.free_variables


@pytest.mark.parametrize("source", ["{{ x.__class__.__mro__ }}", "{{ x.append(1) }}", "{{ x.pop() }}"])
def test_the_sandbox_holds_for_what_a_request_tells_too(source: str) -> None:
    with pytest.raises(RequestError, match="does not accept this conversation"):
        ChatTemplate(source, {}).render(CONVERSATION, {"x": [1]})


def test_a_template_that_writes_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "{% for i in range(90000) %}{% for j in range(90000) %}TEXT{{ '' }}{% endfor %}{% endfor %}"
    monkeypatch.setattr(chat_template, "MAX_RENDERED_CHARS", 100_000)
    with pytest.raises(RequestError, match="exceeds its limits on text or time for this conversation"):
        ChatTemplate(endless, {}).render(CONVERSATION)
    monkeypatch.setattr(chat_template, "RENDER_LIMIT_S", 0.05)
    with pytest.raises(RequestError, match="exceeds its limits on text or time for this conversation"):
        ChatTemplate(endless.replace("TEXT", "{{ text }}"), {}).render(CONVERSATION, {"text": ""})


def test_blocks_leave_no_lines_behind() -> None:
    assert render("  {% if true %}\na\n  {% endif %}\nb") == "a\nb"


def test_loop_controls_and_generation_marks_work() -> None:
    marked = "{% generation %}{{ n }}{% endgeneration %}"
    assert render("{% for n in [1, 2, 3] %}{% if n == 2 %}{% break %}{% endif %}" + marked + "{% endfor %}") == "1"


def test_json_is_written_as_json() -> None:
    assert render("{{ {'b': '<é>', 'a': 1} | tojson(sort_keys=true) }}") == '{"a": 1, "b": "<é>"}'


def test_templates_may_ask_for_the_date() -> None:
    assert render("{{ strftime_now('%Y') }}") == str(datetime.datetime.now().astimezone().year)


def test_a_templates_own_words_reach_the_client() -> None:
    with pytest.raises(RequestError, match="messages: Roles must alternate") as caught:
        render("{{ raise_exception('Roles must alternate') }}")
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('I dislike ' + messages[0].content) }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[0].content.nothing.more }}",
        "{{ 1 / 0 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% macro deep(n) %}{{ deep(n) }}{% endmacro %}{{ deep(1) }}",
    ],
)
def test_a_failing_template_says_so_without_any_content(source: str) -> None:
    with pytest.raises(RequestError, match="does not accept this conversation") as caught:
        render(source)
    assert SECRET not in str(caught.value)


def test_a_template_that_does_not_compile_is_a_checkpoint_error() -> None:
    with pytest.raises(CheckpointError, match="does not compile"):
        ChatTemplate("{% if %}", {})


def test_a_template_is_found_in_its_file_before_the_configuration(tmp_path: Path) -> None:
    config = {"chat_template": "from the configuration"}
    assert read_chat_template(tmp_path, config) == "from the configuration"
    (tmp_path / "chat_template.jinja").write_text("from the file")
    assert read_chat_template(tmp_path, config) == "from the file"


def test_of_several_templates_the_default_counts(tmp_path: Path) -> None:
    templates = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    assert read_chat_template(tmp_path, {"chat_template": templates}) == "d"
    assert read_chat_template(tmp_path, {"chat_template": templates[:1]}) is None


def test_no_template_is_none(tmp_path: Path) -> None:
    assert read_chat_template(tmp_path, {}) is None
