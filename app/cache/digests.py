"""What Redis really holds of working memory, computed inside Redis, at most 1,000 keys a call."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from redis import Redis

from app.cache import keys

KEYS_A_CALL = 1000
"""More would hold up every other client of Redis, which is the broker too: 10,000 keys block it for 26 ms."""

TOLERANCE_MS = 2000
"""How far a key's end may lie from its row's."""

# The count of values, the XOR of their digests (20 bytes in hex; see app.cache.contexts.digest), and how many end at another time than
# they should.
_DIGEST = r"""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local count, wrong = 0, 0
local words = {0, 0, 0, 0, 0}
for i, key in ipairs(KEYS) do
    local value = redis.pcall('GET', key)
    if type(value) == 'string' then
        count = count + 1
        local digest = redis.sha1hex(key .. '\n' .. value)
        for w = 1, 5 do
            words[w] = bit.bxor(words[w], tonumber(string.sub(digest, w * 8 - 7, w * 8), 16))
        end
        local left = redis.call('PTTL', key)
        if left < 0 or math.abs(now + left - tonumber(ARGV[i])) > tonumber(ARGV[#KEYS + 1]) then
            wrong = wrong + 1
        end
    end
end
local hex = {}
for w = 1, 5 do
    hex[w] = bit.tohex(words[w])
end
return {count, table.concat(hex), wrong}
"""

# Of each key the digest of its value in hex, empty when there is none, and the milliseconds it has left.
_DETAILS = r"""
local found = {}
for i, key in ipairs(KEYS) do
    local value = redis.pcall('GET', key)
    if type(value) == 'string' then
        found[i] = {redis.sha1hex(key .. '\n' .. value), redis.call('PTTL', key)}
    else
        found[i] = {'', redis.call('EXISTS', key)}
    end
end
return found
"""


@dataclass(frozen=True, slots=True)
class Digest:
    """How many values there are, the XOR of their digests (20 bytes), and how many end at a wrong time."""

    count: int
    xor: bytes
    wrong_ttl_count: int


@dataclass(frozen=True, slots=True)
class Held:
    """What Redis holds under one key: the digest of its value, None when there is none, and the milliseconds left, -1 for no end."""

    sha1: bytes | None
    left_ms: int
    is_other_type: bool = False


class RedisDigests:
    """Asks Redis, as the user that may run scripts.

    Args:
        redis: A client of that user; its errors are the caller's.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._digest = redis.register_script(_DIGEST)
        self._details = redis.register_script(_DETAILS)

    def digest(self, contexts: Sequence[tuple[str, str]], expires_ms: Sequence[int]) -> Digest:
        """Return the digest over at most 1,000 contexts, (agent_id, context_id), and when each should end, in milliseconds since 1970."""
        count, xor, wrong = self._digest(keys=[keys.working(*context) for context in contexts], args=[*expires_ms, TOLERANCE_MS])
        return Digest(int(count), bytes.fromhex(xor.decode()), int(wrong))

    def details(self, contexts: Sequence[tuple[str, str]]) -> list[Held]:
        """Return what Redis holds of at most 1,000 contexts, in their order."""
        found = self._details(keys=[keys.working(*context) for context in contexts])
        return [
            Held(bytes.fromhex(digest.decode()) if digest else None, int(left) if digest else -2, is_other_type=not digest and bool(left))
            for digest, left in found
        ]

    def scan(self) -> Iterator[list[bytes]]:
        """Yield the keys of working memory that Redis holds, in portions of about 1,000; some may come twice."""
        cursor = 0
        while True:
            cursor, found = self._redis.scan(cursor, match=keys.working("*", "*"), count=KEYS_A_CALL)
            if found:
                yield [key for key in found if isinstance(key, bytes)]
            if cursor == 0:
                return
