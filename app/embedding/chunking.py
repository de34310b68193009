"""Cuts an episode into encoder inputs that the model reads whole, and pools their vectors into one."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from langchain_text_splitters import RecursiveCharacterTextSplitter
from numpy.typing import NDArray
from tokenizers import Tokenizer

SEPARATORS = ["\n\n", "\n", ". ", " ", ""]
"""Where a text is cut, best place first; the last one cuts between any two characters."""

MAX_PREFIX_TOKENS = 48
"""Longest actor prefix in tokens; a longer name is abbreviated so that the content keeps its room."""

ELLIPSIS = "…"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One encoder input and the part of the content that it covers.

    Attributes:
        char_start: First character of the content that the chunk holds.
        char_end: One past the last one.
        text: The exact encoder input: "actor: " (nothing without an actor), then the content's characters.
    """

    char_start: int
    char_end: int
    text: str


@dataclass(frozen=True, slots=True)
class _Span:
    """A chunk's place: [start, fresh) repeats the end of the chunk before, [fresh, end) is new."""

    start: int
    fresh: int
    end: int


def untruncated(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy that neither cuts nor pads, and that nobody else can reconfigure: safe to share between threads."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


class Chunker:
    """Cuts contents into chunks measured by the model's own tokenizer.

    Args:
        tokenizer: The model's tokenizer; a copy is used, so its truncation and padding do not matter and are not changed.
        max_tokens: Longest encoder input, special tokens and actor prefix included.
        overlap_tokens: Tokens of the chunk before that a chunk repeats, where the text can be split there; fewer at a word's edge.

    Raises:
        ValueError: There would be no room for new content in a chunk.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int = 256, overlap_tokens: int = 50) -> None:
        self._tokenizer = untruncated(tokenizer)
        self._max_tokens = max_tokens
        self._overlap_tokens = overlap_tokens
        self._special_tokens = self._tokenizer.num_special_tokens_to_add(False)
        self._prefix_limit = min(MAX_PREFIX_TOKENS, max_tokens // 4)
        if overlap_tokens < 0 or max_tokens - self._special_tokens - self._prefix_limit - overlap_tokens < 1:
            raise ValueError(f"chunks of {max_tokens} tokens with an overlap of {overlap_tokens} leave no room for new content")

    def chunk(self, actor: str | None, content: str) -> list[Chunk]:
        """Return the chunks of one episode in the order of its text.

        Every character of the content lies in some chunk, and no text has more than max_tokens tokens.

        Args:
            actor: Who said or did it; None or blank adds no prefix.
            content: Any text without lone surrogates.

        Returns:
            At least one chunk, also for an empty content. Ends ascend strictly, and starts never descend.
        """
        prefix = self._prefix(actor)
        whole = Chunk(0, len(content), prefix + content)
        if self._fits(whole.text):
            return [whole]
        budget = self._max_tokens - self._special_tokens - self._count(prefix)
        spans = self._spans(content, budget)
        chunks = [Chunk(span.start, span.end, prefix + content[span.start : span.end]) for span in spans]
        sizes = self._tokenizer.encode_batch([chunk.text for chunk in chunks])
        fitting: list[Chunk] = []
        for span, chunk, size in zip(spans, chunks, sizes, strict=True):
            # A cut inside a word can make more tokens than the whole word has: the spans are an estimate, this count is the rule.
            in_order = not fitting or fitting[-1].char_start <= span.start
            if in_order and len(size) <= self._max_tokens:
                fitting.append(chunk)
            else:
                fitting.extend(self._halved(prefix, content, span.fresh, span.end))
        return fitting

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def _fits(self, text: str) -> bool:
        return len(self._tokenizer.encode(text)) <= self._max_tokens

    def _prefix(self, actor: str | None) -> str:
        """Return "actor: ", the name cut to as many of its first tokens as fit and marked with an ellipsis when too long."""
        if actor is None or not actor.strip():
            return ""
        prefix = f"{actor}: "
        if self._count(prefix) <= self._prefix_limit:
            return prefix
        ends = [end for _, end in self._tokenizer.encode(actor, add_special_tokens=False).offsets]
        for kept in range(self._prefix_limit, 0, -1):
            prefix = f"{actor[: ends[min(kept, len(ends)) - 1]]}{ELLIPSIS}: "
            if self._count(prefix) <= self._prefix_limit:
                return prefix
        return f"{ELLIPSIS}: "

    def _spans(self, content: str, budget: int) -> list[_Span]:
        """Return the places of the chunks: langchain's cuts, small neighbours joined, each reaching back over the one before.

        The splitter's own overlap is not used: it forgets the offsets, which a search in a repetitive text cannot recover, and it
        drops the overlap between levels of its recursion. Without overlap its pieces are a partition, whose offsets are sums.
        """
        starts = [start for start, _ in self._tokenizer.encode(content, add_special_tokens=False).offsets]
        pieces = self._splitter(budget - self._overlap_tokens).split_text(content)
        cuts = [0, *(cut for cut in accumulate(map(len, pieces)) if cut < len(content)), len(content)]
        joined = self._join(cuts, starts, budget)
        spans = [_Span(0, 0, joined[1])]
        for before, fresh, end in zip(joined, joined[1:], joined[2:], strict=False):
            spans.append(_Span(max(before, self._reach_back(content, fresh, starts)), fresh, end))
        return spans

    def _splitter(self, chunk_tokens: int) -> RecursiveCharacterTextSplitter:
        return RecursiveCharacterTextSplitter(
            separators=SEPARATORS,
            keep_separator="end",
            strip_whitespace=False,
            chunk_size=chunk_tokens,
            chunk_overlap=0,
            length_function=self._piece_length(),
        )

    def _piece_length(self) -> Callable[[str], int]:
        """Return a token count that remembers: the splitter asks for every piece twice, and for single characters over and over.

        A piece without tokens counts 1, because the splitter's work grows with the square of the pieces in one chunk: a long run of
        blank lines would hang it. Joining takes such pieces up again.
        """
        known = {"": 0}

        def length(piece: str) -> int:
            count = known.get(piece)
            if count is None:
                count = known[piece] = max(1, self._count(piece))
            return count

        return length

    def _join(self, cuts: Sequence[int], starts: Sequence[int], budget: int) -> list[int]:
        """Return the cuts that remain when neighbours that fit one chunk are joined; the first chunk needs no room for an overlap."""
        tokens_before = [bisect_left(starts, cut) for cut in cuts]
        kept, first_token, room = [0], 0, budget
        for (cut, _), (_, tokens_after) in pairwise(zip(cuts, tokens_before, strict=True)):
            if cut and tokens_after - first_token > room:
                kept.append(cut)
                first_token, room = bisect_left(starts, cut), budget - self._overlap_tokens
        return [*kept, cuts[-1]]

    def _reach_back(self, content: str, fresh: int, starts: Sequence[int]) -> int:
        """Return where a chunk with new content from `fresh` starts: overlap_tokens earlier, or at the next word soon after that."""
        last = bisect_left(starts, fresh)
        first = max(0, last - self._overlap_tokens)
        if first == last:
            return fresh
        for token in range(first, first + (last - first) // 2):
            if starts[token] == 0 or content[starts[token] - 1].isspace():
                return starts[token]
        return starts[first]

    def _halved(self, prefix: str, content: str, start: int, end: int) -> list[Chunk]:
        """Return chunks of [start, end) without overlap, halved until each fits: for texts without places to split at."""
        text = prefix + content[start:end]
        if end - start == 1 or self._fits(text):
            return [Chunk(start, end, text)]
        middle = (start + end) // 2
        return [*self._halved(prefix, content, start, middle), *self._halved(prefix, content, middle, end)]


def pool(vectors: NDArray[np.float32], lengths: Sequence[int]) -> NDArray[np.float32]:
    """Return the length-weighted mean of chunk vectors as one unit vector.

    Args:
        vectors: Chunk vectors, shape (n, d), n >= 1.
        lengths: Length of each chunk, all above 0. Callers pass char_end - char_start, overlap included: that is the text the vector
            was made from, and it can be computed again from a stored row without its neighbours.

    Returns:
        Shape (d,), float32, length 1.

    Raises:
        ValueError: The shapes do not agree, a value is not finite, or the mean has no direction.
    """
    if vectors.ndim != 2 or len(vectors) == 0 or len(vectors) != len(lengths):
        raise ValueError(f"cannot pool vectors of shape {vectors.shape} with {len(lengths)} lengths")
    mean = np.average(vectors.astype(np.float64), axis=0, weights=np.asarray(lengths, dtype=np.float64))
    norm = float(np.linalg.norm(mean))
    if not np.isfinite(norm) or norm < 1e-12:
        raise ValueError("the mean of the chunk vectors has no direction")
    unit: NDArray[np.float32] = (mean / norm).astype(np.float32)
    return unit
