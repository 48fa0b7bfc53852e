"""The page's own modules, called in the browser that runs them."""

from typing import Any, Protocol

from playwright.sync_api import CDPSession, Page


class CallModule(Protocol):
    """Returns what `function`, JavaScript's source, makes of the module `page/<name>.js` and `argument`."""

    def __call__(self, name: str, function: str, argument: object = None) -> Any: ...


class TimeModule(Protocol):
    """Seconds of processor time that the page's main thread needs for `function`. Other processes do not count."""

    def __call__(self, name: str, function: str, argument: object = None) -> float: ...


def call_module(page: Page, name: str, function: str, argument: object = None) -> Any:
    """As `CallModule` says. Promises are awaited; hundreds of cases in one argument cost no more than one."""
    return page.evaluate(
        f"async ([name, argument]) => ({function})(await import(`/page/${{name}}.js`), argument)", [name, argument]
    )


def time_module(page: Page, session: CDPSession, name: str, function: str, argument: object = None) -> float:
    """As `TimeModule` says. `session` measures in the time domain `threadTicks`."""

    def busy_s() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")

    before = busy_s()
    call_module(page, name, function, argument)
    return busy_s() - before
