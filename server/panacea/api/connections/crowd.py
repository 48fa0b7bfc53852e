"""All open connections, and which of them have to make room for a new one."""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Member(Protocol):
    """A connection, as far as the crowd looks at it."""

    @property
    def peer(self) -> str | None:
        """The address of its client; None for a proxy."""
        ...

    @property
    def silent_since(self) -> float | None:
        """Since when it waits for more of a request, in seconds; None while it serves one."""
        ...


class ClosableMember(Member, Protocol):
    """A connection that can be closed to make room."""

    def displace(self) -> None: ...


Connected = TypeVar("Connected", bound=Member)


class Crowd(Generic[Connected]):
    """Counts connections, in total and by client. A new connection displaces silent ones, the oldest first.

    A connection is silent while it has sent no complete request: it may be idle, slow or hostile. So silent connections
    lock out nobody, and those of one client displace each other first.
    """

    def __init__(self, limit: int, peer_limit: int, spare: int) -> None:
        """`limit`: connections in total. `peer_limit`: silent connections of one client. `spare`: as many silent ones
        stay, so that the others have the time to send a probe."""
        self._limit = limit
        self._least_silent = min(limit, spare)
        self._peer_limit = peer_limit
        self._members: dict[Connected, str | None] = {}
        self._of_peer: dict[str, dict[Connected, None]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def enter(self, member: Connected) -> Iterator[Connected]:
        """Adds a connection. Yields those that must be closed for it, which have left the crowd already."""
        peer = member.peer
        if peer is not None:
            own = self._of_peer.setdefault(peer, {})
            if len(own) >= self._peer_limit:
                silent = [each for each in own if each.silent_since is not None]
                if len(silent) >= self._peer_limit:
                    yield self._without(_oldest(silent))
        if len(self._members) >= self._limit:
            silent = [each for each in self._members if each.silent_since is not None]
            if len(silent) >= self._least_silent:
                yield self._without(_oldest(silent))
        self._members[member] = peer
        if peer is not None:
            self._of_peer.setdefault(peer, {})[member] = None

    def leave(self, member: Connected) -> None:
        """Forgets a closed connection. Calling it again changes nothing."""
        if member not in self._members:
            return
        peer = self._members.pop(member)
        if peer is not None:
            own = self._of_peer[peer]
            del own[member]
            if not own:
                del self._of_peer[peer]

    def _without(self, member: Connected) -> Connected:
        self.leave(member)
        return member


def _oldest(silent: list[Connected]) -> Connected:
    return min(silent, key=lambda each: each.silent_since or 0.0)
