"""`GET /health` and `GET /ready`."""

from typing import Literal

from fastapi import APIRouter

from panacea.api.access.admission import Admission
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import ApiError, error_docs
from panacea.api.fields import Documented


class Health(Documented):
    """The HTTP process responds."""

    status: Literal["ok"] = "ok"
    """Always ok."""


class Readiness(Documented):
    """The engine is running and responds."""

    status: Literal["ready"] = "ready"
    """Always ready."""


def reason_not_ready(engine: EngineLike, admission: Admission, heartbeat_limit_s: float) -> ApiError | None:
    """Why no request can be served now. None if one can."""
    if admission.draining:
        return ApiError(503, "this server is shutting down", code="shutting_down")
    if not engine.alive:
        return ApiError(503, "the engine is not running", code="engine_unavailable")
    if engine.heartbeat_age_s > heartbeat_limit_s:
        return ApiError(503, f"the engine has not responded for {heartbeat_limit_s:g} s", code="engine_silent")
    return None


def health_router(engine: EngineLike, admission: Admission, heartbeat_limit_s: float) -> APIRouter:
    """The routes for this engine."""
    router = APIRouter(tags=["health"])

    @router.get("/health", summary="Is the process alive?")
    async def health() -> Health:  # pyright: ignore[reportUnusedFunction]
        """For a liveness probe. The response does not depend on the engine."""
        return Health()

    @router.get("/ready", summary="Can requests be served?", responses=error_docs(503))
    async def ready() -> Readiness:  # pyright: ignore[reportUnusedFunction]
        """For a readiness probe: 200 if the model is loaded, the engine responds, and the server is not shutting
        down."""
        error = reason_not_ready(engine, admission, heartbeat_limit_s)
        if error is not None:
            raise error
        return Readiness()

    return router
