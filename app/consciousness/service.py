"""Memory blocks that say who an agent is, and checkpoints that prove whether it still is."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from app.audit import record
from app.consciousness import repository
from app.consciousness.identity import Continuity, compare, identity_hash
from app.consciousness.models import BlockView, CheckpointView, NewCheckpoint
from app.db import Database
from app.errors import BlockReadOnly, Conflict, NotFound, PermissionDenied

_FIXED = "the block is read-only; an administrator makes it writable with read_only false"


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore found.

    `is_intact` says whether the checkpoint's blocks still have its identity hash; `continuity` compares them with the blocks before the
    restore; `blocks_written` counts blocks that were put back as they were, made or removed.
    """

    checkpoint: CheckpointView
    is_intact: bool
    current_identity_hash: str
    continuity: Continuity
    blocks_written: int


class ConsciousnessService:
    """The use cases of memory blocks and checkpoints.

    Args:
        database: Logged in as nexus_app.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_block(self, agent_id: str, label: str, value: str, *, read_only: bool) -> BlockView:
        """Store a block under a new label and return it.

        Raises:
            Conflict: The agent has a block of this label.
        """
        with self._database.transaction(agent_id) as connection:
            block = repository.insert_block(connection, agent_id, label, value, read_only=read_only)
        if block is None:
            raise Conflict("the agent has a block of this label; PUT replaces its value")
        return block

    def put_block(
        self,
        agent_id: str,
        label: str,
        value: str,
        *,
        read_only: bool | None,
        expected_version: int | None,
        may_unlock: bool,
        by: UUID | None = None,
    ) -> tuple[BlockView, bool]:
        """Give a block a value and return (what is stored, whether it is new).

        Args:
            agent_id: Whose.
            label: Which.
            value: What it says from now on.
            read_only: Whether it is fixed from now on; None leaves that as it is.
            expected_version: Change it only while this is its version; 0 stands for a block that is not there.
            may_unlock: Whether the caller may make a read-only block writable.
            by: The caller's key, for the audit log, which tells who made a read-only block writable.

        Raises:
            BlockReadOnly: It is fixed.
            Conflict: It has another version than expected.
            PermissionDenied: It is fixed and the caller may not unlock it.
        """
        with self._database.transaction(agent_id) as connection:
            while True:
                if expected_version in (None, 0):
                    made = repository.insert_block(connection, agent_id, label, value, read_only=bool(read_only))
                    if made is not None:
                        return made, True
                standing = repository.get_block(connection, agent_id, label, lock=True)
                # What stood in the way may be deleted before it is locked: then the label is free again.
                if standing is not None or expected_version is not None:
                    break
            block = _of_version(standing, expected_version)
            if block.read_only and read_only is False:
                if not may_unlock:
                    raise PermissionDenied("only an administrator makes a read-only block writable")
                repository.set_read_only(connection, agent_id, label, read_only=False)
                record(connection, by, "unlock block", agent_id, {"label": label, "is_changed": value != block.value})
            elif block.read_only and value != block.value:
                raise BlockReadOnly(_FIXED)
            repository.set_value(connection, agent_id, label, value)
            if read_only and not block.read_only:
                repository.set_read_only(connection, agent_id, label, read_only=True)
            return self._block(connection, agent_id, label), False

    @staticmethod
    def _block(connection: Connection, agent_id: str, label: str) -> BlockView:
        block = repository.get_block(connection, agent_id, label)
        if block is None:
            raise NotFound("this agent has no such block")
        return block

    def get_block(self, agent_id: str, label: str) -> BlockView:
        """Return one block.

        Raises:
            NotFound: The agent has no block of this label.
        """
        with self._database.transaction(agent_id) as connection:
            return self._block(connection, agent_id, label)

    def delete_block(self, agent_id: str, label: str) -> None:
        """Delete a block.

        Raises:
            BlockReadOnly: It is fixed.
            NotFound: The agent has no block of this label.
        """
        with self._database.transaction(agent_id) as connection:
            block = repository.get_block(connection, agent_id, label, lock=True)
            if block is None:
                raise NotFound("this agent has no such block")
            if block.read_only:
                raise BlockReadOnly(_FIXED)
            repository.delete_block(connection, agent_id, label)

    def list_blocks(self, agent_id: str, limit: int, after: str | None = None) -> tuple[list[BlockView], str | None]:
        """Return one page of blocks in order of their labels, and the label after which the next one begins."""
        with self._database.transaction(agent_id) as connection:
            blocks = repository.list_blocks(connection, agent_id, limit + 1, after)
        return (blocks, None) if len(blocks) <= limit else (blocks[:limit], blocks[limit - 1].label)

    def checkpoint(self, agent_id: str, checkpoint: NewCheckpoint) -> CheckpointView:
        """Store a state with the agent's blocks of this moment, and return it.

        Raises:
            InvalidRequest: PostgreSQL cannot represent a value.
        """
        with self._database.transaction(agent_id) as connection:
            blocks = _values(repository.lock_blocks(connection, agent_id))
            previous = repository.list_checkpoints(connection, agent_id, None, 1, None)
            continuity = compare(previous[0].blocks, blocks).score if previous else 1.0
            return repository.insert_checkpoint(
                connection, agent_id, checkpoint, blocks, identity_hash=identity_hash(blocks), continuity_score=continuity
            )

    def get_checkpoint(self, agent_id: str, checkpoint_id: UUID) -> CheckpointView:
        """Return one checkpoint.

        Raises:
            NotFound: The agent has no such checkpoint.
        """
        with self._database.transaction(agent_id) as connection:
            return self._checkpoint(connection, agent_id, checkpoint_id)

    @staticmethod
    def _checkpoint(connection: Connection, agent_id: str, checkpoint_id: UUID) -> CheckpointView:
        checkpoint = repository.get_checkpoint(connection, agent_id, checkpoint_id)
        if checkpoint is None:
            raise NotFound("this agent has no such checkpoint")
        return checkpoint

    def list_checkpoints(
        self, agent_id: str, limit: int, *, checkpoint_type: str | None = None, after: int | None = None
    ) -> tuple[list[CheckpointView], int | None]:
        """Return one page of checkpoints, the newest first, and the seq after which the next one begins."""
        with self._database.transaction(agent_id) as connection:
            found = repository.list_checkpoints(connection, agent_id, checkpoint_type, limit + 1, after)
        return (found, None) if len(found) <= limit else (found[:limit], found[limit - 1].seq)

    def restore(self, agent_id: str, checkpoint_id: UUID, *, write_blocks: bool) -> Restored:
        """Return a checkpoint with its identity hash computed anew and compared with the blocks now.

        Args:
            agent_id: Whose.
            checkpoint_id: Which.
            write_blocks: Put the blocks back as they were, all of them or none.

        Raises:
            BlockReadOnly: A block that would have to change is fixed; nothing was written.
            Conflict: The checkpoint is not what was stored, so it is not written back; or another request made a block meanwhile that
                would have to come back. Nothing was written.
            NotFound: The agent has no such checkpoint.
        """
        with self._database.transaction(agent_id) as connection:
            checkpoint = self._checkpoint(connection, agent_id, checkpoint_id)
            blocks = repository.lock_blocks(connection, agent_id)
            continuity = compare(checkpoint.blocks, _values(blocks))
            is_intact = identity_hash(checkpoint.blocks) == checkpoint.identity_hash
            written = 0
            if write_blocks:
                if not is_intact:
                    raise Conflict("the checkpoint was changed behind the service's back; it is not written back")
                written = _write_back(connection, agent_id, checkpoint.blocks, blocks, continuity)
        return Restored(checkpoint, is_intact, identity_hash(_values(blocks)), continuity, written)


def _of_version(block: BlockView | None, version: int | None) -> BlockView:
    if block is None:
        raise Conflict("the agent has no block of this label, so it has no such version")
    if version is not None and block.version != version:
        raise Conflict(f"the block has version {block.version} now; read it again and decide anew", version=block.version)
    return block


def _values(blocks: list[BlockView]) -> dict[str, str]:
    return {block.label: block.value for block in blocks}


def _write_back(connection: Connection, agent_id: str, before: dict[str, str], blocks: list[BlockView], continuity: Continuity) -> int:
    touched = {*continuity.changed, *continuity.added}
    fixed = [block.label for block in blocks if block.read_only and block.label in touched]
    if fixed:
        raise BlockReadOnly(f"{len(fixed)} blocks that would have to change are read-only", labels=fixed[:50])
    for label in continuity.changed:
        repository.set_value(connection, agent_id, label, before[label])
    for label in continuity.removed:
        # What was locked before is all that there was: a label that another request made since is nobody's to overwrite.
        if repository.insert_block(connection, agent_id, label, before[label], read_only=False) is None:
            raise Conflict("a block that would have to come back was made meanwhile; nothing was written, so ask again")
    for label in continuity.added:
        repository.delete_block(connection, agent_id, label)
    return len(continuity.changed) + len(continuity.removed) + len(continuity.added)
