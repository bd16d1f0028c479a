"""Random text that compresses like people's: words of uneven frequency, joined to phrases.

Everything comes from the random.Random that the caller seeds, so a corpus is the same every time.
Random words picked one by one would take minutes for gigabytes; phrases of two to four words are
drawn from a pool that is large enough not to repeat much within a chunk.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

SYLLABLES = (
    "an ar ba be ca ce co da de di do el en er fa fe fi ga ge go ha he ho in is it jo ka ke ki la"
    " le li lo ma me mi mo na ne ni no on or pa pe po qua ra re ri ro sa se si so sta ta te ti to"
    " tra tri un ur va ve vi vo wa we wi xe ya ye za zo"
).split()
COMMON = (
    "the of and to in a is that for it was on with be by as at have are this from or had not but"
    " all were when we there can an your which their if will each about how up out them then she"
    " many some so these would other into has more two like him time customer offer order call"
    " meeting price contract delivery invoice support renewal project budget quote follow next"
).split()


def make_words(rng: random.Random, count: int) -> list[str]:
    """Make `count` different words, the common English ones first."""
    words = dict.fromkeys(COMMON[:count])
    while len(words) < count:
        words["".join(rng.choices(SYLLABLES, k=rng.choice((2, 2, 3, 3, 4))))] = None
    return list(words)


class Prose:
    """A source of text; all methods advance the same random sequence."""

    def __init__(self, seed: int, vocabulary: int = 4_000, phrases: int = 40_000) -> None:
        self.rng = random.Random(seed)
        self.clock = 0  # milliseconds, of the log lines
        self.words = make_words(self.rng, vocabulary)
        # Zipf's law: the n-th word is about n times rarer than the first.
        weights = [1 / (rank + 3) for rank in range(vocabulary)]
        drawn = self.rng.choices(self.words, weights, k=phrases * 4)
        self.phrases = [
            " ".join(drawn[4 * i : 4 * i + self.rng.choice((2, 3, 3, 4))]) for i in range(phrases)
        ]

    def sentence(self, phrases: int) -> str:
        """Return one sentence of that many phrases, about 17 bytes each, without a newline."""
        return " ".join(self.rng.choices(self.phrases, k=phrases)).capitalize() + "."

    def block(self, size: int) -> bytes:
        """Return exactly `size` bytes of lines as in a log: time, worker, words."""
        lines: list[str] = []
        have = 0
        while have < size:
            picked = self.rng.choices(self.phrases, k=400)
            for at in range(0, 400, 5):
                self.clock += 37 + (self.rng.getrandbits(8))
                second, milli = divmod(self.clock, 1000)
                stamp = f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
                words = " ".join(picked[at : at + 5])
                line = f"2026-03-01 {stamp}.{milli:03d} w{self.clock % 31:02d} {words}\n"
                lines.append(line)
                have += len(line)
        return "".join(lines).encode()[:size]


def pick(rng: random.Random, choices: Sequence[str]) -> str:
    """Return one of `choices`; faster than random.choice, which rejects and retries."""
    return choices[int(rng.random() * len(choices))]
