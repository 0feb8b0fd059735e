"""Where things live in the store: which shard holds a user, and the hash tags of its keys (rotation.md section 3)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .entries import in_every_shard, target_of


@dataclass(frozen=True, slots=True)
class Placement:
    """The layout of one store: a key prefix, and a number of shards that is fixed when the store is first used.

    A user's sessions, their index, the shard's blacklist sets and its log share one hash tag, so that every step of a
    session's life is one atomic script in one slot.
    """

    prefix: str
    #: A power of two, at most 256.
    shards: int

    @property
    def root(self) -> str:
        """The tag of what belongs to no shard: the key ring and the store's own settings."""
        return root_tag(self.prefix)

    @property
    def tags(self) -> list[str]:
        """The tag of every shard, in order."""
        return [self.tag(shard) for shard in range(self.shards)]

    def tag(self, shard: int) -> str:
        """The hash tag of one shard."""
        return f"{{{self.prefix}:{shard}}}"

    def shard_of_user(self, user_id: str) -> int:
        """The shard that holds a user: the first byte of SHA-256 of the id, modulo the number of shards."""
        return hashlib.sha256(user_id.encode()).digest()[0] % self.shards

    def shard_of_handle(self, handle: bytes) -> int:
        """The shard that holds a session: its handle's first byte, modulo the number of shards."""
        return handle[0] % self.shards

    def tags_of_entry(self, entry: bytes) -> list[str]:
        """The hash tags of the shards that a revocation entry is written into."""
        return self.tags if in_every_shard(entry) else [self.tag(self.shard_of_handle(target_of(entry)))]

    def handle(self, user_id: str, random: bytes) -> bytes:
        """A handle in the user's shard out of 16 random bytes: only the bits that name the shard are given."""
        first = random[0] - random[0] % self.shards + self.shard_of_user(user_id)
        return bytes((first,)) + random[1:16]


def root_tag(prefix: str) -> str:
    """The hash tag of what belongs to no shard."""
    return f"{{{prefix}}}"
