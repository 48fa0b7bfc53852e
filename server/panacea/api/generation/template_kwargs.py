"""The request field `chat_template_kwargs`: variables of the model's chat template."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import Field

from panacea.api.error_responses import ApiError, shown_name
from panacea.api.fields import FINITE, only

FIELD = "chat_template_kwargs"
_MOST_LISTED = 120

TemplateKwargs = Annotated[
    dict[str, Any] | None,
    FINITE,
    Field(
        description="Variables of the model's chat template, by name, such as enable_thinking. Values may be any JSON. "
        "Names that the template does not read, or that the server sets, are an error."
    ),
]
NoTemplate = Annotated[Any, only(), Field(description="Not supported, because a template is a program: null.")]


def check_template_kwargs(given: Mapping[str, Any] | None, allowed: Collection[str]) -> None:
    """Raises `ApiError` (400) if one of these variables is not `allowed`: not read by the template, or the server's."""
    for name in given or ():
        if name not in allowed:
            path = shown_name(f"{FIELD}.{name}")
            free = ", ".join(sorted(allowed))[:_MOST_LISTED] or "none"
            message = (
                f"{path} is not a variable of this model's chat template that a request may set; those are: {free}"
            )
            raise ApiError(400, message, path)
