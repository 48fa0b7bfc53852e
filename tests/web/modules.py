"""The page's own modules, called in the browser that runs them."""

from typing import Any, Protocol

from playwright.sync_api import Page


class CallModule(Protocol):
    """Returns what `function`, JavaScript's source, makes of the module `page/<name>.js` and `argument`."""

    def __call__(self, name: str, function: str, argument: object = None) -> Any: ...


def call_module(page: Page, name: str, function: str, argument: object = None) -> Any:
    """As `CallModule` says. Promises are awaited; hundreds of cases in one argument cost no more than one."""
    return page.evaluate(
        f"async ([name, argument]) => ({function})(await import(`/page/${{name}}.js`), argument)", [name, argument]
    )
