"""Counter-based Gumbel noise: the same bits on every device and in every kernel.

Philox4x32-10 (Salmon et al., SC 2011) keyed by the seed; the counter is (token // 4, position,
stream), and token % 4 picks one of the four words. Everything after it is IEEE arithmetic in a
fixed order without fused multiply-add, so `csrc/philox.h` gives equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
# log(1 + f) = f - f²/2 + f³ Q(f) for sqrt(1/2) - 1 <= f <= sqrt(2) - 1, to 2e-8.
LOG_COEFFICIENTS = (
    0.3333333134651184, -0.25000306963920593, 0.20001044869422913, -0.166412815451622,
    0.14214496314525604, -0.12998183071613312, 0.12622319161891937, -0.0790274366736412,
)  # fmt: skip
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # the high part times an exponent is exact


def philox(counter: Sequence[Tensor], seed: int) -> tuple[Tensor, ...]:
    """Four 32-bit words (int64 tensors) for each counter, ten rounds."""
    c0, c1, c2, c3 = counter
    key = [seed & WORD, (seed >> 32) & WORD]
    for _ in range(10):
        first, second = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]  # wrap around at 64 bits
        c0, c1, c2, c3 = (
            ((second >> 32) & WORD) ^ c1 ^ key[0],
            second & WORD,
            ((first >> 32) & WORD) ^ c3 ^ key[1],
            first & WORD,
        )
        key = [(key[0] + WEYL[0]) & WORD, (key[1] + WEYL[1]) & WORD]
    return c0, c1, c2, c3


def log32(x: Tensor) -> Tensor:
    """Natural logarithm of positive normal float32, within 2 units in the last place."""
    bits = x.view(torch.int32)
    shifted = bits - 0x3F3504F3  # sqrt(1/2): splits off the exponent so that 1 + f is near 1
    exponent = (shifted >> 23).float()
    f = ((shifted & 0x7FFFFF) + 0x3F3504F3).view(torch.float32) - 1.0
    tail = torch.full_like(f, LOG_COEFFICIENTS[-1])
    for coefficient in LOG_COEFFICIENTS[-2::-1]:
        tail = tail * f + coefficient
    square = f * f
    small = tail * (square * f) + exponent * LN2_LOW
    return (f + (small - square * 0.5)) + exponent * LN2_HIGH


def gumbel(seed: int, stream: Tensor, position: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel noise (N, vocabulary), float32, for rows keyed by `stream` and `position`.

    stream, position: int64 (N,); of the position the low 32 bits count. Noise reaches from -2.9
    to 22.9, so the tail is cut where one draw in 2^33 lies.
    """
    counters = torch.arange(math.ceil(vocabulary / 4), device=stream.device)
    rows = [position & WORD, stream & WORD, (stream >> 32) & WORD]
    words = philox(
        (
            counters.expand(len(stream), -1),
            *(row[:, None].expand(-1, len(counters)) for row in rows),  # type: ignore[arg-type]
        ),
        seed,
    )
    bits = torch.stack(words, -1).flatten(1)[:, :vocabulary]
    w = ((bits.float() + 0.5) * 2.0**-32).clamp(max=1 - 2.0**-24)
    rest = 1.0 - w
    exponential = -(log32(rest) + ((1.0 - rest) - w))  # -log1p(-w): precise where w is small
    return -log32(exponential)
