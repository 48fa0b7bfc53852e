"""Drawing the next token of each row, in plain torch."""

import torch

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
GAMMA, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

CANDIDATES = 1024
"""So many tokens are looked at first for top-k and top-p, and sixteen times as many whenever those do not suffice. Of
16 rows of 151,936 tokens it takes 14 ms to find the 1,024 most likely, 40 for 16,384, 210 for all (one Xeon core)."""

TOKENS_AT_ONCE = 1 << 18
"""So many tokens' numbers stay in a CPU's cache: the noise of 16 rows of 151,936 tokens takes 44 ms; in float64 and all
at once it took 108 (one Xeon core)."""


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """One token per row, drawn from softmax(logits / temperature) cut to top-k, then to top-p.

        argmax over the kept tokens of  logits + temperature * g,   g = -log(-log(u)) standard Gumbel noise

    which is greedy at temperature 0; the lowest id wins a tie. u is a hash of (key, token) alone: no generator with a
    state, so that a row's token does not depend on what else is in the batch.

    Kept are the tokens whose logit is at least the k-th largest, and of those, whose probabilities are taken to sum
    to 1, the ones at least as likely as the last of the fewest most likely that reach top_p together. Equals of the
    last one are kept too.

    Shapes and dtypes: logits (rows, vocabulary) floating, -inf for what must not come; temperature (rows,) float32;
    top_k (rows,) int32, 0 for no cut; top_p (rows,) float32, 1 for no cut; keys (rows,) int64. Returns (rows,) int64.
    """
    logits = logits.float()
    chosen = logits.argmax(dim=-1)
    warm = temperature > 0
    cut = warm & ((top_k > 0) | (top_p < 1))
    token_ids = torch.arange(logits.shape[1], device=logits.device)
    for some in _groups(warm & ~cut, logits.shape[1]):
        scores = logits[some] + temperature[some, None] * gumbel_noise(keys[some, None], token_ids)
        chosen[some] = scores.argmax(dim=-1)
    for some in _groups(cut, logits.shape[1]):
        kept, candidates = _most_likely(logits[some], temperature[some], top_k[some], top_p[some])
        scores = kept + temperature[some, None] * gumbel_noise(keys[some, None], candidates)
        best = scores == scores.amax(dim=-1, keepdim=True)
        first = candidates.masked_fill(~best, logits.shape[1]).amin(dim=-1)
        chosen[some] = first.clamp_max(logits.shape[1] - 1)  # NaN equals nothing: any token will do
    return chosen


def _groups(chosen: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """The numbers of the chosen rows (rows,) bool, as many together as `TOKENS_AT_ONCE` allows."""
    rows = chosen.nonzero()[:, 0]
    return torch.split(rows, max(1, TOKENS_AT_ONCE // size)) if len(rows) else ()


def gumbel_noise(keys: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise float32 for keys and token ids (int64, broadcast together).

    Computed from v = 1 - u as -log(-log1p(-v)): float32 is finest where v is near 0, and that is the tail that wins.
    """
    state = keys + (token_ids + 1) * _signed(GAMMA)
    state = (state ^ _shift_right(state, 30)) * _signed(MIX_1)
    state = (state ^ _shift_right(state, 27)) * _signed(MIX_2)
    state = state ^ _shift_right(state, 31)
    uniform = (_shift_right(~state, 11).to(torch.float32) + 0.5) * 2.0**-53
    return -torch.log(-torch.log1p(-uniform.clamp_max(1 - 2.0**-24)))  # finite: temperature 0 times inf were NaN


def _most_likely(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The kept tokens' logits (rows, candidates), -inf where a row keeps fewer than others, and their ids.

    Looks at the `CANDIDATES` most likely tokens; where those do not suffice at more, in the end the whole vocabulary.
    """
    size = logits.shape[-1]
    k = torch.where(top_k > 0, top_k, size).clamp_max(size)[:, None]
    count = min(CANDIDATES, size)
    scale = temperature.double()[:, None]
    largest = logits.amax(dim=-1, keepdim=True)
    total: torch.Tensor | None = None
    while True:
        ordered, token_ids = logits.topk(count, dim=-1)
        # A row whose k lies beyond the candidates shares its probability among all that are at least the k-th, which
        # are not all here; with k as large as the vocabulary those are simply all.
        kth = ordered.gather(-1, (k - 1).clamp_max(count - 1).long())
        within = (ordered >= kth) | (k > count)
        scaled = ((ordered - largest).double() / scale).masked_fill(~within, float("-inf"))
        mass = scaled.logsumexp(dim=-1, keepdim=True)
        if bool((k > count).any()):
            if total is None:
                total = ((logits - largest).double() / scale).logsumexp(dim=-1, keepdim=True)
            mass = torch.where(k <= count, mass, total)
        probabilities = (scaled - mass).exp()
        reached = probabilities.cumsum(dim=-1)
        # The last of the fewest that reach top_p: the first at which the sum does.
        enough = reached >= top_p[:, None]
        last = torch.where(enough.any(-1, keepdim=True), enough.int().argmax(-1, keepdim=True), count - 1)
        threshold = torch.maximum(ordered.gather(-1, last), kth.masked_fill(k > count, float("-inf")))
        # Tokens that are not here may equal the k-th, and then have a share too.
        sure = ((k <= count) & (ordered[:, -1:] < kth)) | ((k == size) & enough.any(-1, keepdim=True))
        if count == size or bool((sure & (ordered[:, -1:] < threshold)).all()):
            return ordered.masked_fill(ordered < threshold, float("-inf")), token_ids
        count = min(16 * count, size)


def _signed(bits: int) -> int:
    """The same 64 bits as torch's signed integer; its arithmetic wraps around like the unsigned one."""
    return bits - (1 << 64) if bits >> 63 else bits


def _shift_right(state: torch.Tensor, by: int) -> torch.Tensor:
    """A shift that fills with zeros (torch's own fills with the sign)."""
    return (state >> by) & ((1 << (64 - by)) - 1)
