"""`GET /v1/models`."""

import time
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from panacea.api.catalog import Catalog
from panacea.api.errors import error_docs


class ModelCard(BaseModel):
    """A model id and the preference it stands for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["panacea"] = "panacea"
    preference: dict[str, float] | None
    """Weights that a request with this id gets if it names none; null for the bare base model."""


class ModelList(BaseModel):
    """All model ids."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def models_router(catalog: Catalog) -> APIRouter:
    """The routes, over this catalog."""
    router = APIRouter(tags=["models"])
    created = int(time.time())

    def card(model: str) -> ModelCard:
        preference = catalog.choose(model, None).preference
        return ModelCard(id=model, created=created, preference=catalog.shown(preference))

    @router.get("/v1/models", summary="List model ids", responses=error_docs(401, 421))
    async def list_models() -> ModelList:  # pyright: ignore[reportUnusedFunction]
        """The served model, its bare base, and each preset as a model of its own for front ends with a model menu."""
        return ModelList(data=[card(model) for model in catalog.ids])

    @router.get("/v1/models/{model:path}", summary="Describe one model id", responses=error_docs(401, 404, 421))
    async def retrieve_model(model: str) -> ModelCard:  # pyright: ignore[reportUnusedFunction]
        """One of the ids of GET /v1/models."""
        return card(model)

    return router
