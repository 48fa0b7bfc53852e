"""All open connections, and which of them have to make room for a new one."""

import asyncio
from array import array
from collections.abc import Hashable, Iterator
from fcntl import ioctl
from termios import FIONREAD
from typing import Generic, Protocol, TypeVar

_MOST_LOOKED_AT = 8
"""Most silent connections that are looked at for one that may be closed."""


class Member(Hashable, Protocol):
    """A connection, as far as the crowd looks at it."""

    @property
    def peer(self) -> str | None:
        """The address of its client; None for a proxy."""
        ...

    @property
    def has_unread_data(self) -> bool:
        """Whether its client has sent something that the server has not read yet."""
        ...


class ClosableMember(Member, Protocol):
    """A connection that can be closed to make room."""

    def displace(self) -> None: ...


Connected = TypeVar("Connected", bound=Member)


def has_unread_data(transport: asyncio.BaseTransport) -> bool:
    """Whether data from the client waits in the kernel."""
    waiting = array("i", [0])
    ioctl(transport.get_extra_info("socket").fileno(), FIONREAD, waiting)
    return waiting[0] > 0


class Crowd(Generic[Connected]):
    """Counts connections, in total and by client. A new connection displaces silent ones, the oldest first.

    A connection is silent while it has sent no complete request: it may be idle, slow or hostile. So silent connections
    lock out nobody, and those of one client displace each other first. Every call takes the same time, however many
    connections there are.
    """

    def __init__(self, limit: int, peer_limit: int, spare: int) -> None:
        """`limit`: connections in total. `peer_limit`: silent connections of one client. `spare`: as many silent ones
        stay, so that the others have the time to send a probe."""
        self._limit = limit
        self._least_silent = min(limit, spare)
        self._peer_limit = peer_limit
        self._peers: dict[Connected, str | None] = {}
        # The one that has been silent for longest comes first.
        self._silent: dict[Connected, None] = {}
        self._silent_of: dict[str, dict[Connected, None]] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def enter(self, member: Connected) -> Iterator[Connected]:
        """Adds a silent connection. Yields those that must be closed for it, which have left the crowd already."""
        peer = member.peer
        own = {} if peer is None else self._silent_of.get(peer, {})
        if len(own) >= self._peer_limit:
            yield from self._without_oldest(own)
        if len(self) >= self._limit and len(self._silent) >= self._least_silent:
            yield from self._without_oldest(self._silent)
        self._peers[member] = peer
        self.hush(member)

    def hush(self, member: Connected) -> None:
        """Marks a connection as silent from now on. Its client has sent no complete request."""
        if member not in self._peers:
            return
        self.hear(member)
        self._silent[member] = None
        peer = self._peers[member]
        if peer is not None:
            self._silent_of.setdefault(peer, {})[member] = None

    def hear(self, member: Connected) -> None:
        """Marks a connection as one with a complete request."""
        self._silent.pop(member, None)
        peer = self._peers.get(member)
        if peer is not None and peer in self._silent_of:
            self._silent_of[peer].pop(member, None)
            if not self._silent_of[peer]:
                del self._silent_of[peer]

    def leave(self, member: Connected) -> None:
        """Forgets a closed connection. Calling it again changes nothing."""
        self.hear(member)
        self._peers.pop(member, None)

    def _without_oldest(self, silent: dict[Connected, None]) -> Iterator[Connected]:
        for _ in range(min(len(silent), _MOST_LOOKED_AT)):
            oldest = next(iter(silent))
            if not oldest.has_unread_data:
                self.leave(oldest)
                yield oldest
                return
            self.hush(oldest)  # of many clients that connect at once, the requests are read in a moment
