"""`GET /v1/preferences` and `GET /v1/evaluation`: what can be asked for, and what it was measured to do."""

from fastapi import APIRouter, Response

from panacea.api.catalog import Catalog
from panacea.api.error_responses import ApiError, error_docs
from panacea.api.fields import Documented
from panacea.api.information.evaluation_schema import Evaluation


class DimensionCard(Documented):
    """One thing that an answer can be more or less of."""

    name: str
    """As preferences name it."""
    description: str
    """What more of it means."""


class Preferences(Documented):
    """The dimensions that a preference weighs; empty for a base model without adapter."""

    dimensions: list[DimensionCard]
    """In the order of an array of weights."""
    default: dict[str, float]
    """The weights that are used where a request names none."""
    presets: dict[str, dict[str, float]]
    """Named weights, each a model id of its own."""
    example_prompts: list[str]
    """Questions that show the model well."""


def preferences_router(catalog: Catalog, evaluation: bytes | None) -> APIRouter:
    """The routes, over this catalog and the content of the adapter's evaluation file."""
    router = APIRouter(tags=["preferences"])

    @router.get("/v1/preferences", summary="List dimensions and presets", responses=error_docs(401, 421, 431, 503))
    async def list_preferences() -> Preferences:  # pyright: ignore[reportUnusedFunction]
        """Dimensions in the order of an array of weights, the default and the named preferences, with sum 1."""
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
        summary="How the adapter answers over the whole space",
        response_model=Evaluation,
        responses=error_docs(401, 404, 421, 431, 503),
    )
    async def get_evaluation() -> Response:  # pyright: ignore[reportUnusedFunction]
        """The adapter's measured front: mean rewards over a grid of preferences. 404 if it was never measured."""
        if evaluation is None:
            raise ApiError(404, "this adapter comes without an evaluation", code="no_evaluation")
        return Response(evaluation, media_type="application/json")

    return router
