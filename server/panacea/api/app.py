"""Builds the FastAPI application: the routes, and the ASGI middleware around them."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from panacea.api.access.admission import Admission
from panacea.api.access.bearer_keys import BearerKeys
from panacea.api.access.gate import Gate
from panacea.api.access.key_ring import RATE_HEADERS, KeyRing
from panacea.api.catalog import Catalog
from panacea.api.connections.disconnect import CancelOnDisconnect
from panacea.api.connections.head_limits import HeadLimits
from panacea.api.connections.hosts import HostAllowList
from panacea.api.connections.request_id import RequestId
from panacea.api.connections.request_line import RequestLine
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import LastResort, handle_errors
from panacea.api.generation.chat_route import chat_router
from panacea.api.generation.completions_route import completions_router
from panacea.api.information.docs_page import add_docs_page
from panacea.api.information.health_route import health_router
from panacea.api.information.keys_route import keys_router
from panacea.api.information.models_route import models_router
from panacea.api.information.openapi import DocumentedApp
from panacea.api.information.preferences_route import preferences_router
from panacea.api.information.tokenization_route import tokenization_router
from panacea.api.information.web_page import add_page
from panacea.api.observability.measured_engine import MeasuredEngine
from panacea.api.observability.metrics import Metrics, metrics_router
from panacea.api.observability.request_log import RequestLog
from panacea.api.observability.tracing import Tracing
from panacea.config import ServerConfig
from panacea.errors import CheckpointError
from panacea.evaluation import Evaluation
from panacea.preference import PreferenceSpace
from panacea.text.pool import TextService
from panacea.text.schema_checks import SchemaChecks

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_DESCRIPTION = """\
OpenAI's API for one language model and one adapter, plus a **preference**: each request weighs the adapter's
dimensions, such as `{"helpful": 0.7, "harmless": 0.2, "concise": 0.1}`. Requests with different preferences share one
batch. With the official client: `extra_body={"preference": {...}}`.

If the server was started with API keys, send one of them: `Authorization: Bearer KEY`. All errors have the same shape,
`{"error": {"message", "type", "param", "code"}}`. Every response has an `x-request-id`.
"""


def create_app(
    config: ServerConfig,
    engine: EngineLike,
    text: TextService,
    space: PreferenceSpace | None,
    evaluation: bytes | None,
    admission: Admission | None = None,
    tracer: "Tracer | None" = None,
) -> FastAPI:
    """The application with all routes and middleware.

    `space` is None for a base model without adapter. `evaluation` is the content of the adapter's evaluation file.
    The caller closes `text`. Pass `admission` to drain the server or to inspect what it holds. `tracer` gets
    OpenTelemetry's spans.

    Raises `CheckpointError` if the evaluation does not match the published schema.
    """
    if evaluation is not None:
        _check(evaluation)
    catalog = Catalog(config.model_name, space)
    admission = admission or new_admission(config, engine)
    metrics = Metrics(config.model_name, engine, text, space, admission)
    measured = MeasuredEngine(engine, metrics)
    app = DocumentedApp(
        title="Panacea",
        version=version("panacea-server"),
        description=_DESCRIPTION,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's two pages load scripts from a CDN
        redoc_url=None,
        # The first one is the outermost.
        middleware=[
            Middleware(RequestId),
            Middleware(RequestLog),
            *_tracing(tracer, config.model_name, space),
            *_cors(config.cors_origins),
            Middleware(LastResort),
            Middleware(RequestLine),
            Middleware(HeadLimits, config.limits.max_head_bytes, config.limits.max_headers),
            Middleware(HostAllowList, config.allowed_hosts),
            Middleware(BearerKeys, admission),
            Middleware(Gate, admission),
            Middleware(CancelOnDisconnect),
        ],
    )
    handle_errors(app)
    add_page(app)
    add_docs_page(app)
    app.include_router(health_router(engine, admission, config.heartbeat_limit_s))
    app.include_router(metrics_router(metrics))
    app.include_router(keys_router(admission.keys))
    app.include_router(models_router(catalog))
    app.include_router(preferences_router(catalog, evaluation))
    schemas = SchemaChecks(text)
    app.include_router(chat_router(config.limits, measured, text, catalog, schemas))
    app.include_router(completions_router(config.limits, measured, text, catalog, schemas))
    app.include_router(tokenization_router(config.limits, measured, text, catalog))
    return app


def _tracing(tracer: "Tracer | None", model_name: str, space: PreferenceSpace | None) -> list[Middleware]:
    return [] if tracer is None else [Middleware(Tracing, tracer, model_name, space.names if space else ())]


def _cors(origins: Sequence[str]) -> list[Middleware]:
    """The CORS middleware, if there are origins. It is outside of `BearerKeys`, because a preflight has no key."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            # OpenAI's client for JavaScript sends x-stainless-*. No page can make a browser send cookies.
            allow_headers=["*"],
            expose_headers=("x-request-id", "retry-after", *RATE_HEADERS),
        )
    ]


def new_admission(config: ServerConfig, engine: EngineLike, keys: KeyRing | None = None) -> Admission:
    """The admission control for a server with this configuration, and with `keys` if they exist already."""
    return Admission(config.limits, engine.info.max_batch, keys or KeyRing(config.api_keys, config.limits))


def _check(evaluation: bytes) -> None:
    try:
        TypeAdapter(Evaluation).validate_json(evaluation)
    except ValidationError as error:
        raise CheckpointError(f"the adapter's evaluation file does not match its schema: {error}") from error
