"""Counts wrong API keys by client address."""

from collections import OrderedDict

from panacea.api.access.minute_rate import MinuteRate

_MOST_ADDRESSES = 4096
"""Addresses that are remembered. Of more, those are forgotten whose last wrong key is the longest ago."""


class WrongKeys:
    """Limits the wrong keys per minute from one address. Right keys from the same address are never counted."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._rates: OrderedDict[str, MinuteRate] = OrderedDict()

    def __len__(self) -> int:
        """Number of remembered addresses."""
        return len(self._rates)

    def count(self, address: str) -> float:
        """Counts a wrong key. Returns the seconds until the address may try another one; 0 within the limit."""
        # The probe port's thread calls this too, so no step relies on the one before.
        rate = self._rates.pop(address, None) or MinuteRate(self._per_minute)
        self._rates[address] = rate
        if len(self._rates) > _MOST_ADDRESSES:
            self._rates.popitem(last=False)
        wait_s = rate.wait_s(1)
        if not wait_s:
            rate.spend(1)
        return wait_s
