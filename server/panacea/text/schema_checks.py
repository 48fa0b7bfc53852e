"""Checks schemas before the engine gets them, and remembers the results."""

import asyncio
from collections import OrderedDict
from hashlib import sha256

from panacea.errors import RequestError
from panacea.text.jobs import CheckSchema
from panacea.text.pool import TextService

_REMEMBERED = 4096


class _Check:
    """A check that requests wait for. It ends when nobody waits any more."""

    def __init__(self, task: asyncio.Task[str | None]) -> None:
        self._task = task
        self._waiting = 0

    async def error(self) -> str | None:
        self._waiting += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._task.cancel()  # has no effect on a check that is done


class SchemaChecks:
    """Checks schemas in a text worker. Equal schemas of one tenant share a check.

    The schema's own faults are remembered: invalid, not supported, too much work. A worker that was killed or late
    says nothing about a schema, so the next request checks it again.
    """

    def __init__(self, text: TextService) -> None:
        self._text = text
        self._errors: OrderedDict[bytes, str | None] = OrderedDict()
        self._running: dict[tuple[str, bytes], _Check] = {}
        """By tenant too: a tenant must not wait in the queue of another one."""

    async def check(self, schema: str, tenant: str) -> None:
        """Raises `RequestError` (param "response_format") if the engine cannot enforce this schema.

        Raises `TextWorkerError` if the check was killed or late.
        """
        digest = sha256(schema.encode()).digest()
        if digest in self._errors:
            self._errors.move_to_end(digest)
            error = self._errors[digest]
        else:
            error = await self._check(schema, tenant, digest)
        if error is not None:
            raise RequestError(error, CheckSchema.param)

    async def _check(self, schema: str, tenant: str, digest: bytes) -> str | None:
        key = tenant, digest
        if key not in self._running:
            task = asyncio.get_running_loop().create_task(self._error_of(schema, tenant, digest))
            task.add_done_callback(lambda _: self._running.pop(key))
            self._running[key] = _Check(task)
        return await self._running[key].error()

    async def _error_of(self, schema: str, tenant: str, digest: bytes) -> str | None:
        try:
            await self._text.run(CheckSchema(schema), tenant)
        except RequestError as error:
            self._errors[digest] = str(error)
        else:
            self._errors[digest] = None
        if len(self._errors) > _REMEMBERED:
            self._errors.popitem(last=False)
        return self._errors[digest]
