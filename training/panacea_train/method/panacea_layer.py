"""A linear layer with a Panacea adapter, and the preference that all layers of one model share."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from panacea.errors import PreferenceError
from panacea.model.adapter_config import SHARED
from panacea_train.method import columns
from panacea_train.method.panacea_config import PanaceaConfig

PreferenceLike = Tensor | Sequence[float] | Mapping[str, float]
"""A tensor (m,) or (batch, m), used unchanged, or weights in a request's form, which are checked and normalised."""


class AdapterSteering:
    """The current preference of a model. All its layers share one object; `steered` writes into it."""

    def __init__(self, config: PanaceaConfig) -> None:
        assert config.scaling is not None
        self.space = config.space
        self._scaling = config.scaling
        # Column 0 of the table in `weights_for` holds the shared columns' weight, so dimension d is in column d + 1.
        self._table_columns = torch.tensor(config.columns) - SHARED
        self.trained_rows: Tensor | None = None
        """(r,) int64, see `columns.trained_rows`; None when each column trains its own singular value."""
        if config.one_scale_per_matrix:
            self.trained_rows = columns.trained_rows(config.columns)
        self._weights: Tensor | None = self.weights_for(self.space.default)

    def weights_for(self, preference: PreferenceLike) -> Tensor:
        """scaling * w(preference) of design.md section 1, (1 or batch, 1, r) float32.

        A row of zeros is not a preference. It means the bare base and gives zeros for the shared columns too.

        Raises `PreferenceError` if the shape does not fit, or for weights that are not valid in a request.
        """
        if not isinstance(preference, Tensor):
            preference = torch.tensor(self.space.resolve(preference))
        dimensions = len(self.space.dimensions)
        if preference.dim() not in (1, 2) or preference.shape[-1] != dimensions:
            raise PreferenceError(f"preference has shape {tuple(preference.shape)} instead of (batch, {dimensions})")
        rows = preference.to(torch.float32)
        rows = rows[None] if rows.dim() == 1 else rows
        # An adapter without dimensions has one preference, the empty one, and that is not the base.
        is_steered = (rows != 0).any(dim=1) if dimensions else rows.new_ones(len(rows))
        table = torch.cat((is_steered.to(torch.float32)[:, None], rows), dim=1)
        return (self._scaling * table[:, self._table_columns.to(table.device)])[:, None, :]

    def weights_on(self, device: torch.device) -> Tensor | None:
        """The result of `weights_for` for the current preference, on `device`; None for the bare base."""
        if self._weights is not None and self._weights.device != device:
            self._weights = self._weights.to(device)
        return self._weights

    def rows_on(self, device: torch.device) -> Tensor | None:
        """`trained_rows` on `device`."""
        if self.trained_rows is not None and self.trained_rows.device != device:
            self.trained_rows = self.trained_rows.to(device)
        return self.trained_rows

    @contextmanager
    def under(self, preference: PreferenceLike | None) -> Generator[None]:
        """Every forward in this context runs under `preference`; None is the bare base."""
        with self._holding(None if preference is None else self.weights_for(preference)):
            yield

    def bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function` as a function that always runs under the preference that is current now."""
        weights = self._weights

        def run(*args: Any, **kwargs: Any) -> Any:
            with self._holding(weights):
                return function(*args, **kwargs)

        return run

    @contextmanager
    def _holding(self, weights: Tensor | None) -> Generator[None]:
        before = self._weights
        self._weights = weights
        try:
            yield
        finally:
            self._weights = before


class PanaceaLinear(nn.Module, BaseTunerLayer):
    """y = x W0^T + ((x A^T) * w) B^T with w = scaling * E * w(preference), one preference for each row of the batch.

    `lora_A` (r, in), `lora_B` (out, r) and `lora_E`: (r, 1), or (k + 1, 1) while the preference columns share one
    singular value (`columns.py`). Each is a dict only because peft needs the adapter's name as its key.
    """

    adapter_layer_names = ("lora_A", "lora_B", "lora_E")

    def __init__(
        self, base_layer: nn.Linear, adapter_name: str, config: PanaceaConfig, steering: AdapterSteering
    ) -> None:
        super().__init__()
        assert config.r is not None
        self.base_layer = base_layer
        self.steering = steering
        rows = steering.trained_rows
        trained = config.r if rows is None else int(rows.max()) + 1
        # Drawn in float32 and then cast, so that a seed gives the same adapter over a base of any dtype.
        a = torch.empty(config.r, base_layer.in_features).normal_(std=config.initializer_std)
        b = torch.empty(base_layer.out_features, config.r).normal_(std=config.initializer_std)
        like = base_layer.weight
        self.lora_A = nn.ParameterDict({adapter_name: nn.Parameter(a.to(like))})
        self.lora_B = nn.ParameterDict({adapter_name: nn.Parameter(b.to(like))})
        self.lora_E = nn.ParameterDict({adapter_name: nn.Parameter(like.new_zeros(trained, 1))})
        self.set_adapter(adapter_name, inference_mode=config.inference_mode)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, in) -> (batch, tokens, out), in the base layer's dtype.

        Raises `PreferenceError` if there are several preferences, but not one for each row of the batch.
        """
        weights = self.steering.weights_on(x.device)
        if weights is None or self._disable_adapters or not self._active_adapter:
            base: Tensor = self.base_layer(x)
            return base
        if weights.shape[0] != 1 and (x.dim() != 3 or weights.shape[0] != x.shape[0]):
            raise PreferenceError(f"{weights.shape[0]} preferences for an input of shape {tuple(x.shape)}")
        a, b, e = self._factors()
        h = F.linear(x if x.dtype == a.dtype else x.to(a.dtype), a)
        h = h * (weights * e).to(h.dtype)
        # Two dimensions, so that the product can be added in place: F.linear's result is a view if it has three, and a
        # separate sum would read and write all of y once more.
        y: Tensor = self.base_layer(x.reshape(-1, x.shape[-1]))
        h = h.reshape(-1, h.shape[-1])
        y = y.addmm_(h, b.t()) if y.dtype == h.dtype == b.dtype else y + F.linear(h, b).to(y.dtype)
        return y.view(*x.shape[:-1], y.shape[-1])

    def delta(self, preference: PreferenceLike) -> Tensor:
        """scaling * B diag(E * w(preference)) A for one preference (m,): (out, in) float64 on the base's device."""
        weights = self.steering.weights_for(preference)
        if weights.shape[0] != 1:
            raise PreferenceError(f"{weights.shape[0]} preferences cannot be merged into one weight")
        a, b, e = self._factors()
        return (b.double() * (weights[0, 0].to(e.device) * e).double()) @ a.double()

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """A (r, in), B (out, r), and E as (r,)."""
        name = self._active_adapter[0]
        e = self.lora_E[name].view(-1)
        rows = self.steering.rows_on(e.device)
        return self.lora_A[name], self.lora_B[name], e if rows is None else e[rows]

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Not possible: a merged weight has one preference. See `PanaceaModel.merge_and_unload`."""
        raise NotImplementedError("a Panacea adapter merges for one preference: model.merge_and_unload(preference)")

    def unmerge(self) -> None:
        """Not possible, because adapters are never merged in place."""
        raise NotImplementedError("a Panacea adapter is never merged in place")
