"""`GET /health` and `GET /ready`."""

from typing import Literal

from fastapi import APIRouter

from panacea.api.access.admission import Admission
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import ApiError, error_docs
from panacea.api.fields import Documented


class Health(Documented):
    """The process answers."""

    status: Literal["ok"] = "ok"
    """Always ok."""


class Readiness(Documented):
    """The engine is alive and was heard of lately."""

    status: Literal["ready"] = "ready"
    """Always ready."""


def health_router(engine: EngineLike, admission: Admission, heartbeat_limit_s: float) -> APIRouter:
    """The routes, over this engine."""
    router = APIRouter(tags=["health"])

    @router.get("/health", summary="Is the process alive?")
    async def health() -> Health:  # pyright: ignore[reportUnusedFunction]
        """For a liveness probe; says nothing about the engine."""
        return Health()

    @router.get("/ready", summary="Can requests be served?", responses=error_docs(503))
    async def ready() -> Readiness:  # pyright: ignore[reportUnusedFunction]
        """For a readiness probe: the model is loaded, the engine's heartbeat is fresh, and the server is not about to
        end."""
        if admission.draining:
            raise ApiError(503, "this server is shutting down", code="shutting_down")
        if not engine.alive:
            raise ApiError(503, "the engine is gone", code="engine_unavailable")
        if engine.heartbeat_age_s > heartbeat_limit_s:
            raise ApiError(503, "the engine has not been heard of lately", code="engine_silent")
        return Readiness()

    return router
