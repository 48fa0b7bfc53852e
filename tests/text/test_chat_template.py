"""Chat templates run as in transformers, in a sandbox, and fail with an error that shows no content."""

import datetime
from pathlib import Path

import pytest

from panacea.errors import CheckpointError, RequestError
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
