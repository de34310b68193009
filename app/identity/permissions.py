"""What each role may do: one table, with no knowledge of routes."""

from collections.abc import Mapping
from enum import StrEnum

from app.errors import PermissionDenied
from app.identity.models import KeyRole, Principal


class Permission(StrEnum):
    """One kind of access; a route asks for exactly one."""

    WRITE_MEMORY = "write memory"
    READ_MEMORY = "read memory"
    MANAGE_KEYS = "manage keys"
    READ_AUDIT = "read the audit log"
    FORGET_AGENT = "forget an agent"
    UNLOCK_BLOCKS = "make read-only memory blocks writable"
    VERIFY_RECEIPTS = "verify receipts"
    READ_STATS = "read statistics"
    READ_INTEGRITY = "read the accounting identity"
    READ_HEALTH = "read health and metrics"
    READ_QUEUE = "read the queue"
    REPLAY_DEAD = "replay dead rows"


_OPERATIONS = frozenset(
    {
        Permission.VERIFY_RECEIPTS,
        Permission.READ_STATS,
        Permission.READ_INTEGRITY,
        Permission.READ_HEALTH,
        Permission.READ_QUEUE,
        Permission.REPLAY_DEAD,
    }
)
_READER = frozenset({Permission.READ_MEMORY, Permission.VERIFY_RECEIPTS, Permission.READ_STATS, Permission.READ_HEALTH})

GRANTS: Mapping[KeyRole, frozenset[Permission]] = {
    "admin": frozenset(Permission),
    "agent": _READER | {Permission.WRITE_MEMORY, Permission.FORGET_AGENT},
    "readonly": _READER,
    # An operator sees counts and states of every agent and the content of none.
    "operator": _OPERATIONS,
}


def require(principal: Principal, permission: Permission) -> None:
    """Do nothing when the principal holds the permission.

    Raises:
        PermissionDenied: It does not.
    """
    if permission not in GRANTS[principal.role]:
        raise PermissionDenied(f"a key of role {principal.role} may not {permission.value}")
