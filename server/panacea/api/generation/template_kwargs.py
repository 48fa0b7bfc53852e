"""What a request tells the model's chat template, beside the messages. The template itself is never a request's."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from panacea.api.error_responses import ApiError, shown_name
from panacea.api.fields import FINITE, only
from panacea.text import ModelText

FIELD = "chat_template_kwargs"
_MOST_LISTED = 120

TemplateKwargs = Annotated[
    dict[str, Any] | None,
    FINITE,
    Field(
        description="Variables of the model's own chat template, by name, such as enable_thinking where it reads that. "
        "Any JSON; but names that the template does not read, or that the server sets, are an error."
    ),
]
NoTemplate = Annotated[
    Any, only(), Field(description="Never taken from a request, because a template is a program: null.")
]


def check_template_kwargs(given: Mapping[str, Any] | None, text: ModelText) -> None:
    """Raises `ApiError` (400) unless the template reads all of these, and the server sets none of them."""
    for name in given or ():
        if name not in text.template_variables:
            path = shown_name(f"{FIELD}.{name}")
            free = ", ".join(sorted(text.template_variables))[:_MOST_LISTED] or "none"
            raise ApiError(400, f"{path} is no variable to set of this model's chat template; those are: {free}", path)
