"""Makes the engine's requests from a checked HTTP request."""

from collections.abc import Iterable, Sequence

from starlette.requests import Request as HttpRequest

from panacea.api.access.admission import ticket_of
from panacea.api.access.cache_salt import cache_salt
from panacea.api.generation.generation_request import GenerationRequest
from panacea.api.generation.sampling_fields import sampling_params
from panacea.config import Limits
from panacea.engine.outputs import EngineInfo
from panacea.engine.request import Request
from panacea.preference import Preference
from panacea.text.generation_defaults import GenerationDefaults


def engine_requests(
    http: HttpRequest,
    wanted: GenerationRequest,
    preference: Preference | None,
    prompts: Iterable[Sequence[int]],
    defaults: GenerationDefaults,
    info: EngineInfo,
    limits: Limits,
) -> tuple[Request, ...]:
    """One request for each of the `n` answers to each prompt, beginning with the first prompt's.

    Raises `ApiError` (400) or `RequestError` for fields that do not fit a prompt or the model.
    """
    salt, tenant = cache_salt(http, wanted.cache_salt), ticket_of(http).tenant
    return tuple(
        Request(prompt_ids, preference, params, salt, tenant)
        for prompt_ids in prompts
        for params in sampling_params(wanted, defaults, info, limits, len(prompt_ids))
    )
