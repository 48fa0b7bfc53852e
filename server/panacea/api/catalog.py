"""The model ids of a server, and the preference that each of them selects."""

import re
from dataclasses import dataclass

from panacea.api.error_responses import ApiError
from panacea.errors import PreferenceError
from panacea.preference import BASE_NAME, Preference, PreferenceSpace


@dataclass(frozen=True)
class ServedModel:
    """A model id and the preference to use with it. None is the bare base model."""

    model: str
    preference: Preference | None


class Catalog:
    """The ids `<name>` (the default preference), `<name>:base`, and `<name>:<preset>` for each preset.

    Without a preference space the server has only a base model, and `<name>` and `<name>:base` are the same.
    """

    def __init__(self, name: str, space: PreferenceSpace | None) -> None:
        self.name = name
        self.space = space
        presets = space.presets if space else {}
        self._preferences: dict[str, Preference | None] = {
            name: space.default if space else None,
            f"{name}:{BASE_NAME}": None,
            **{f"{name}:{preset}": preference for preset, preference in presets.items()},
        }

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._preferences)

    def choose(self, model: str | None, weights: object) -> ServedModel:
        """The preference that a request's `model` and `preference` fields select. Weights override a preset.

        Raises `ApiError` (404) for an unknown model, and `PreferenceError` for weights that are invalid or not
        supported by the model id.
        """
        model = self.name if model is None else model
        self.require(model)
        if weights is None:
            return ServedModel(model, self._preferences[model])
        if self.space is None:
            raise PreferenceError("preference: this server has a base model without adapter; leave the field out")
        if model == f"{self.name}:{BASE_NAME}":
            raise PreferenceError(
                f"preference: this model id is the bare base model; use the model {self.name} to weigh "
                f"{', '.join(self.space.names)}"
            )
        return ServedModel(model, self.space.resolve(weights))

    def require(self, model: str | None) -> None:
        """Raises `ApiError` (404) if `model` is given and not served."""
        if model is not None and model not in self._preferences:
            raise ApiError(404, "unknown model; GET /v1/models lists the served models", "model", "model_not_found")

    def explained(self, error: ApiError) -> ApiError:
        """Adds the dimensions to an error in the field `preference`. Other errors are returned unchanged."""
        field = re.split(r"[.\[]", error.param or "")[0]
        if field != "preference" or self.space is None:
            return error
        return ApiError(error.status, f"{error.message} ({self.space.listed})", "preference", "invalid_preference")

    def shown(self, preference: Preference | None) -> dict[str, float] | None:
        """The preference as {dimension: weight}, the form of answers. None for the bare base model."""
        if preference is None or self.space is None:
            return None
        return self.space.as_dict(preference)
