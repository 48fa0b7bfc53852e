"""`GET /v1/models`."""

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Path

from panacea.api.catalog import Catalog
from panacea.api.error_responses import error_docs
from panacea.api.fields import Documented


class ModelCard(Documented):
    """A model id and the preference that it selects."""

    id: str
    """The value of the request field `model`."""
    object: Literal["model"] = "model"
    """Always model."""
    created: int
    """When the server started, in seconds since 1970."""
    owned_by: Literal["panacea"] = "panacea"
    """Always panacea."""
    preference: dict[str, float] | None
    """Weights of a request with this id and without `preference`. They are null for the bare base model."""


class ModelList(Documented):
    """All model ids."""

    object: Literal["list"] = "list"
    """Always list."""
    data: list[ModelCard]
    """The ids. The id with the default preference comes first."""


def models_router(catalog: Catalog) -> APIRouter:
    """The routes for this catalog."""
    router = APIRouter(tags=["models"])
    created = int(time.time())

    def card(model: str) -> ModelCard:
        preference = catalog.choose(model, None).preference
        return ModelCard(id=model, created=created, preference=catalog.shown(preference))

    @router.get("/v1/models", summary="List model ids", responses=error_docs(401, 403, 421, 431, 503))
    async def list_models() -> ModelList:  # pyright: ignore[reportUnusedFunction]
        """The served model, its bare base, and each preset. A front end can offer all of them in its model menu."""
        return ModelList(data=[card(model) for model in catalog.ids])

    @router.get(
        "/v1/models/{model:path}", summary="Describe one model id", responses=error_docs(401, 403, 404, 421, 431, 503)
    )
    async def retrieve_model(  # pyright: ignore[reportUnusedFunction]
        model: Annotated[str, Path(description="The id, such as panacea-demo:base.")],
    ) -> ModelCard:
        """One of the ids of GET /v1/models."""
        return card(model)

    return router
