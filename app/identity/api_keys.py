"""The form of an API key: how one is made, and the digest under which it is kept."""

import hashlib
import secrets
import string

from app.identity.models import KeyRole

KEY_PREFIX = "nxs_"
"""Every issued key begins with this, so that logs and secret scanners can recognise one."""

_ALPHABET = string.ascii_letters + string.digits
_RANDOM_CHARS = 40  # 62**40 is about 238 bits: far beyond guessing, so a plain SHA-256 needs no salt or stretching.


def new_secret(role: KeyRole) -> str:
    """Return a fresh key, `nxs_<role>_<40 alphanumerics>`."""
    return f"{KEY_PREFIX}{role}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARS))


def digest(secret: str) -> bytes:
    """Return the 32 bytes under which a key is stored and looked up."""
    return hashlib.sha256(secret.encode("utf-8")).digest()
