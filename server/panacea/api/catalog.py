"""The model ids of a server and what each of them means."""

import re
from dataclasses import dataclass

from panacea.api.error_responses import ApiError
from panacea.errors import PreferenceError
from panacea.preference import BASE_NAME, Preference, PreferenceSpace


@dataclass(frozen=True)
class Choice:
    """A model id with the preference to use; None is the bare base model."""

    model: str
    preference: Preference | None


class Catalog:
    """`<name>` with the default preference, `<name>:base`, and `<name>:<preset>` for each preset.

    Without a preference space the server has a bare base model: `<name>` and `<name>:base` are the same.
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

    def choose(self, model: str | None, weights: object) -> Choice:
        """The preference that a request's `model` and `preference` fields mean; weights count more than a preset.

        Raises `ApiError` (404) for an unknown model and `PreferenceError` for weights that mean nothing here.
        """
        model = self.name if model is None else model
        self.require(model)
        if weights is None:
            return Choice(model, self._preferences[model])
        if self.space is None:
            raise PreferenceError("preference: this server has a base model without adapter, so there is none to set")
        if model == f"{self.name}:{BASE_NAME}":
            raise PreferenceError(
                f"preference: this model id is the bare base model; {', '.join(self.space.names)} need the model "
                f"{self.name}"
            )
        return Choice(model, self.space.resolve(weights))

    def require(self, model: str | None) -> None:
        """Raises `ApiError` (404) unless `model` is served, or left out."""
        if model is not None and model not in self._preferences:
            raise ApiError(404, "no such model is served; GET /v1/models lists them", "model", "model_not_found")

    def explained(self, error: ApiError) -> ApiError:
        """An error in a body's `preference` says which dimensions there are; others stay as they are."""
        field = re.split(r"[.\[]", error.param or "")[0]
        if field != "preference" or self.space is None:
            return error
        return ApiError(error.status, f"{error.message} ({self.space.listed})", "preference", "invalid_preference")

    def shown(self, preference: Preference | None) -> dict[str, float] | None:
        """The preference as answers carry it."""
        if preference is None or self.space is None:
            return None
        return self.space.as_dict(preference)
