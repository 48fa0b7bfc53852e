"""Samples the next token of each row, in plain torch."""

import torch

# SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
GAMMA, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

CANDIDATES = 1024
"""Top-k and top-p first examine this many of the most likely tokens, then 16 times as many each time that is too few.
For 16 rows of 151,936 tokens, finding the 1,024 most likely takes 14 ms, 16,384 take 40 ms, all take 210 ms (one Xeon
core)."""

TOKENS_AT_ONCE = 1 << 18
"""Number of tokens processed together, so that their values stay in a CPU's cache. The noise of 16 rows of 151,936
tokens takes 44 ms this way. It took 108 ms in float64 and all at once (one Xeon core)."""


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """One token per row, drawn from softmax(logits / temperature) cut to top-k, then to top-p.

        argmax over the kept tokens of  logits + temperature * g,   g = -log(-log(u)) standard Gumbel noise

    Temperature 0 is greedy. The lowest id wins a tie. u is a hash of (key, token) only. There is no generator with a
    state, so a row's token does not depend on the rest of the batch.

    The cut keeps tokens in two steps. Top-k keeps each token whose logit is at least the k-th largest. Top-p then
    renormalises the probabilities of these tokens. It takes the smallest set of most likely tokens whose sum reaches
    top_p, and keeps each token at least as likely as the last one of this set. Ties with that last one are kept too.

    Shapes and dtypes: logits (rows, vocabulary) floating, -inf for forbidden tokens; temperature (rows,) float32;
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
        chosen[some] = first.clamp_max(logits.shape[1] - 1)  # a row of NaN has no best token: any valid id will do
    return chosen


def _groups(chosen: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """The indices of the rows where `chosen` (rows,) bool is true, in groups of at most `TOKENS_AT_ONCE` tokens."""
    rows = chosen.nonzero()[:, 0]
    return torch.split(rows, max(1, TOKENS_AT_ONCE // size)) if len(rows) else ()


def gumbel_noise(keys: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise in float32 for keys and token ids (int64, broadcast together).

    It is -log(-log1p(-v)) with v = 1 - u. Large noise has v near 0, where float32 has its finest resolution.
    """
    state = keys + (token_ids + 1) * _signed(GAMMA)
    state = (state ^ _shift_right(state, 30)) * _signed(MIX_1)
    state = (state ^ _shift_right(state, 27)) * _signed(MIX_2)
    state = state ^ _shift_right(state, 31)
    uniform = (_shift_right(~state, 11).to(torch.float32) + 0.5) * 2.0**-53
    return -torch.log(-torch.log1p(-uniform.clamp_max(1 - 2.0**-24)))  # finite, as 0 (the temperature) * inf is NaN


def _most_likely(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits (rows, candidates) of the kept tokens, and their ids. Logits of dropped candidates are -inf.

    The search starts with the `CANDIDATES` most likely tokens. It takes more, up to the whole vocabulary, while these
    do not determine the cut of every row.
    """
    size = logits.shape[-1]
    k = torch.where(top_k > 0, top_k, size).clamp_max(size)[:, None]
    count = min(CANDIDATES, size)
    scale = temperature.double()[:, None]
    largest = logits.amax(dim=-1, keepdim=True)
    total: torch.Tensor | None = None
    while True:
        ordered, token_ids = logits.topk(count, dim=-1)
        # If a row's k exceeds the number of candidates, the kept probabilities are not all here and cannot be summed.
        # A k as large as the vocabulary keeps every token, so its sum is `total`.
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
        # The last token of the smallest set that reaches top_p.
        enough = reached >= top_p[:, None]
        last = torch.where(enough.any(-1, keepdim=True), enough.int().argmax(-1, keepdim=True), count - 1)
        threshold = torch.maximum(ordered.gather(-1, last), kth.masked_fill(k > count, float("-inf")))
        # Tokens outside the candidates may tie with the k-th, and would then share the probability.
        sure = ((k <= count) & (ordered[:, -1:] < kth)) | ((k == size) & enough.any(-1, keepdim=True))
        if count == size or bool((sure & (ordered[:, -1:] < threshold)).all()):
            return ordered.masked_fill(ordered < threshold, float("-inf")), token_ids
        count = min(16 * count, size)


def _signed(bits: int) -> int:
    """The same 64 bits as a signed integer, as torch needs it. Its arithmetic wraps around like the unsigned one."""
    return bits - (1 << 64) if bits >> 63 else bits


def _shift_right(state: torch.Tensor, by: int) -> torch.Tensor:
    """A logical right shift (torch's own is arithmetic)."""
    return (state >> by) & ((1 << (64 - by)) - 1)
