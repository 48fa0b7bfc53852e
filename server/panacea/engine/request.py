"""The request: one frozen message that travels whole from the route to the engine."""

from collections import abc
from dataclasses import dataclass

from panacea.engine.sampling_params import SamplingParams
from panacea.preference import Preference


@dataclass(frozen=True)
class Request:
    """One answer to one prompt under one preference.

    An HTTP request for several answers, to several prompts or under several preferences, becomes one `Request` for
    each answer. Every layer between the caller and the engine passes it on whole, so a new field is declared here and
    read in the engine. It is a plain dataclass, because the in-process engine needs no msgspec.
    """

    prompt_ids: abc.Sequence[int]
    """Token ids of the prompt, at least one."""
    preference: Preference | None
    """One weight per dimension of the adapter. None is the bare base model."""
    params: SamplingParams
    cache_salt: str = ""
    """Requests share cached prefixes only with requests of the same salt."""
    tenant: str = ""
    """The owner of the request. Tenants share the engine by tokens."""
