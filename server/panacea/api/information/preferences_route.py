"""`GET /v1/preferences` and `GET /v1/evaluation`: the preference space, and the adapter's measured results."""

from fastapi import APIRouter, Response

from panacea.api.catalog import Catalog
from panacea.api.error_responses import ApiError, error_docs
from panacea.api.fields import Documented
from panacea.evaluation import Evaluation


class DimensionCard(Documented):
    """A property that answers are steered towards."""

    name: str
    """The name of the dimension in preferences."""
    description: str
    """The effect of a higher weight."""


class Preferences(Documented):
    """The dimensions of a preference. All fields are empty for a base model without adapter."""

    dimensions: list[DimensionCard]
    """The dimensions, in the order of an array of weights."""
    default: dict[str, float]
    """The weights of a request without `preference`."""
    presets: dict[str, dict[str, float]]
    """Named weights. Each preset is also a model id."""
    example_prompts: list[str]
    """Prompts that show the effect of preferences well."""


def preferences_router(catalog: Catalog, evaluation: bytes | None) -> APIRouter:
    """The routes for this catalog and the content of the adapter's evaluation file."""
    router = APIRouter(tags=["preferences"])

    @router.get("/v1/preferences", summary="List dimensions and presets", responses=error_docs(401, 403, 421, 431, 503))
    async def list_preferences() -> Preferences:  # pyright: ignore[reportUnusedFunction]
        """The dimensions in the order of an array of weights, and the default and the presets with sum 1."""
        space = catalog.space
        if space is None:
            return Preferences(dimensions=[], default={}, presets={}, example_prompts=[])
        return Preferences(
            dimensions=[DimensionCard(name=each.name, description=each.description) for each in space.dimensions],
            default=space.as_dict(space.default),
            presets={name: space.as_dict(preference) for name, preference in space.presets.items()},
            example_prompts=list(space.example_prompts),
        )

    @router.get(
        "/v1/evaluation",
        summary="Measured rewards over the preference space",
        response_model=Evaluation,
        responses=error_docs(401, 403, 404, 421, 431, 503),
    )
    async def get_evaluation() -> Response:  # pyright: ignore[reportUnusedFunction]
        """The adapter's measured front: mean rewards over a grid of preferences. 404 if it was never measured."""
        if evaluation is None:
            raise ApiError(404, "this adapter has no evaluation; `panacea eval` makes one", code="no_evaluation")
        return Response(evaluation, media_type="application/json")

    return router
