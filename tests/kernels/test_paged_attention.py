import math

import pytest
import torch

from panacea_kernels import PagedLayout, Span, paged_attention

BLOCK_SIZE = 4


def one_query(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, cap: float | None) -> torch.Tensor:
    """Attention of the newest token, head by head, in float64. q (heads, dim), k and v (tokens, kv_heads, dim)."""
    groups = q.shape[0] // k.shape[1]
    out: list[torch.Tensor] = []
    if window is not None:
        k, v = k[-window:], v[-window:]
    for head in range(q.shape[0]):
        scores = k[:, head // groups].double() @ q[head].double() / math.sqrt(q.shape[1])
        if cap is not None:
            scores = cap * torch.tanh(scores / cap)
        out.append(scores.softmax(0) @ v[:, head // groups].double())
    return torch.stack(out)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_steps_of_mixed_work_equal_attention_written_out(window: int | None, cap: float | None, kv_heads: int) -> None:
    """Three sequences grow by chunks and single tokens, in scattered blocks, with garbage in what nobody owns."""
    torch.manual_seed(0)
    k_cache, v_cache = torch.randn(16, BLOCK_SIZE, kv_heads, 8) * 50, torch.randn(16, BLOCK_SIZE, kv_heads, 8) * 50
    lengths = [13, 7, 10]
    blocks = [[3, 9, 0, 12], [15, 1], [7, 2, 11]]
    q, k, v = ([torch.randn(n, heads, 8) for n in lengths] for heads in (4, kv_heads, kv_heads))
    # (sequence, tokens) per step; single tokens first.
    steps = [[(0, 5), (1, 2)], [(1, 1), (0, 3), (2, 9)], [(2, 1), (0, 5), (1, 2)], [(1, 1)], [(1, 1)]]
    done = [0, 0, 0]
    for step in steps:
        spans = [Span(done[s], count, blocks[s]) for s, count in step]
        rows = [(s, done[s] + i) for s, count in step for i in range(count)]
        q_rows, k_rows, v_rows = (torch.stack([states[s][p] for s, p in rows]) for states in (q, k, v))
        layout = PagedLayout.build(spans, BLOCK_SIZE, torch.device("cpu"))
        got = paged_attention(q_rows, k_rows, v_rows, k_cache, v_cache, layout, 8**-0.5, window, cap)
        for row, (s, position) in enumerate(rows):
            expected = one_query(q[s][position], k[s][: position + 1], v[s][: position + 1], window, cap)
            torch.testing.assert_close(got[row].double(), expected, rtol=1e-4, atol=1e-5)
        for s, count in step:
            done[s] += count
    assert done == lengths


def test_a_sequence_that_overflows_does_not_reach_those_who_read_its_blocks_as_padding() -> None:
    """Block 0 pads every shorter sequence, and the tail of a block once belonged to somebody else."""
    torch.manual_seed(0)
    k_cache, v_cache = torch.zeros(4, BLOCK_SIZE, 1, 8), torch.zeros(4, BLOCK_SIZE, 1, 8)

    def attend(spans: list[Span], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        layout = PagedLayout.build(spans, BLOCK_SIZE, torch.device("cpu"))
        return paged_attention(q, k, v, k_cache, v_cache, layout, 1.0)

    broken = torch.full((4, 1, 8), torch.nan)
    broken[1], broken[2] = torch.inf, -torch.inf
    attend([Span(0, 4, [0])], torch.randn(4, 1, 8), broken, broken)  # and its blocks are freed
    attend([Span(0, 4, [2])], torch.randn(4, 1, 8), broken, broken)
    k, v = torch.randn(6, 1, 8), torch.randn(6, 1, 8)
    attend([Span(0, 4, [1])], torch.randn(4, 1, 8), k[:4], v[:4])
    q = torch.randn(2, 1, 8)
    got = attend([Span(4, 1, [1, 2]), Span(0, 1, [3])], q, torch.stack([k[4], k[5]]), torch.stack([v[4], v[5]]))
    expected = ((k[:5, 0] @ q[0, 0]).softmax(0) @ v[:5, 0])[None]
    torch.testing.assert_close(got[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], v[5], rtol=1e-5, atol=1e-6)
