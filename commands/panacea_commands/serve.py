"""`panacea serve`: its options, and what it prints."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from panacea.config import EngineConfig, EngineOptions, Limits, ListenOptions, LogConfig, ServerConfig, Supervision
from panacea.config import Watchdog as WatchdogOptions
from panacea.key_file import read_key_file
from panacea.logs import configure_logs
from panacea_commands.option_sources import ConfigFile, Environment, new_app, panel
from panacea_commands.option_values import allowed_hosts, cors_origins, trusted_proxies, with_presets

serve_app = new_app(
    "serve",
    config=(Environment("PANACEA_", command=False), ConfigFile()),
    help_epilogue="Every option can also come from the environment (PANACEA_MAX_BATCH=8) or from a TOML file "
    "(max_batch = 8). A flag wins over the environment, the environment over the file, and the file over the default.",
)

logger = logging.getLogger("panacea")


@dataclass(frozen=True)
class CheckpointOptions:
    """What is served."""

    model: str | None = None
    """Base model: a folder or a hub id. Default: the adapter's own base."""
    adapter: str | None = None
    """Panacea adapter: a folder or a hub id. Default: the embedded demo, unless --model is given."""
    revision: str | None = None
    """Branch, tag or commit of the base model's hub id. Default: main. A commit pins a deployment."""
    adapter_revision: str | None = None
    """Branch, tag or commit of the adapter's hub id. Default: main."""
    served_model_name: str | None = None
    """The model id that clients ask for. Default: the name of the adapter's folder, or else of the base's."""
    preset: Annotated[tuple[str, ...], Parameter(metavar="NAME=w,w,w")] = ()
    """A named preference; clients ask for it as the model id <name>:NAME. May be repeated."""


@dataclass(frozen=True, kw_only=True)
class HttpOptions(ListenOptions):
    """Where the server listens, and whom it answers."""

    api_key_file: Path | None = None
    """File with one accepted bearer key per line; # begins a comment. A name that ends in .toml: one [[key]] table per
    key, with name, scopes, expiry and rates. Read again when it changes. Without it the server needs no key."""
    allowed_host: Annotated[tuple[str, ...], Parameter(metavar="HOST")] = ()
    """Host header that is answered; * for all. May be repeated. Default: loopback names on a loopback address, else
    all."""
    cors_origin: Annotated[tuple[str, ...], Parameter(metavar="ORIGIN")] = ()
    """Origin (https://app.example) whose pages may call the server from a browser; * for all. May be repeated."""
    trusted_proxy: Annotated[tuple[str, ...], Parameter(metavar="ADDRESS")] = ()
    """Address or network of a proxy whose X-Forwarded-For and X-Forwarded-Proto are believed. May be repeated. A proxy
    on --unix-socket always is."""
    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector (http://collector:4318) that gets traces. Default:
    OTEL_EXPORTER_OTLP_ENDPOINT, if it is set."""


_SERVED, _HTTP = panel("What to serve"), panel("HTTP")
_ENGINE = panel("Engine", negative=None)  # both --prefix-cache and --no-prefix-cache
_LIMITS, _LOGS = panel("Limits"), panel("Logs", name_transform="log-{}".format)


@serve_app.default
def serve(
    *,
    config: Annotated[Path | None, Parameter(help="TOML file with any of these options.")] = None,
    served: Annotated[CheckpointOptions, _SERVED] = CheckpointOptions(),
    http: Annotated[HttpOptions, _HTTP] = HttpOptions(),
    engine: Annotated[EngineOptions, _ENGINE] = EngineOptions(),
    watchdog: Annotated[WatchdogOptions, _ENGINE] = WatchdogOptions(),
    limits: Annotated[Limits, _LIMITS] = Limits(),
    logs: Annotated[LogConfig, _LOGS] = LogConfig(),
) -> int:
    """Serve a model over HTTP, with the OpenAI API and a preference per request.

    Without options this serves the embedded demo model on a CPU:

        panacea serve

    An adapter names its base model. A base model alone is served without preferences:

        panacea serve --adapter ./my-adapter --preset brief=0.1,0.1,0.8
    """
    if logs.format == "json":
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read when the hub's package and transformers are imported
    configure_logs(logs)  # for errors and progress bars from here on
    keys = read_key_file(http.api_key_file).keys if http.api_key_file is not None else ()

    import asyncio

    from panacea.model.checkpoint import Checkpoint
    from panacea.serving import serve as run

    checkpoint = Checkpoint.find(served.model, served.adapter, served.revision, served.adapter_revision)
    space = with_presets(checkpoint.space, served.preset)
    server_config = ServerConfig(
        served.served_model_name or checkpoint.name,
        host=http.host,
        port=http.port,
        probe_port=http.probe_port,
        probe_host=http.probe_host,
        tls_certificate=http.tls_certificate,
        tls_key=http.tls_key,
        unix_socket=http.unix_socket,
        api_keys=keys,
        api_key_file=http.api_key_file,
        allowed_hosts=allowed_hosts("" if http.unix_socket else http.host, http.allowed_host),
        cors_origins=cors_origins(http.cors_origin),
        trusted_proxies=trusted_proxies(http.trusted_proxy),
        otlp_endpoint=http.otlp_endpoint,
        limits=limits,
    )
    engine_config = EngineConfig(
        checkpoint.base, checkpoint.adapter, logs=logs, queue_timeout_s=limits.queue_timeout_s, **vars(engine)
    )

    def announce(text: str) -> None:
        if logs.format == "text":
            sys.stderr.write(f"{text}\n")
        else:
            for line in text.splitlines():
                logger.info(line)

    return asyncio.run(run(server_config, engine_config, space, Supervision(**vars(watchdog)), announce))
