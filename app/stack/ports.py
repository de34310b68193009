"""TCP ports: whether one is free, who holds it, and which one to take."""

import socket

import psutil

from app.errors import StackError

_PORTS = 65_536


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen there now.

    Raises:
        StackError: The address itself cannot be used on this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of an earlier run that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise StackError(f"port {port} needs root rights; set PORT to one above 1023") from None
        except socket.gaierror:
            raise StackError(f"HOST {host!r} is not an address of this machine") from None
        except OSError as error:
            if error.errno == 99:  # EADDRNOTAVAIL
                raise StackError(f"HOST {host!r} is not an address of this machine") from error
            return False
    return True


def choose(remembered: int, taken: frozenset[int] = frozenset()) -> int:
    """Return the remembered port of loopback if it is still free, else one that the kernel picks.

    Args:
        remembered: The port of the last run, 0 for none.
        taken: Ports that this stack gives to somebody else.
    """
    if remembered and remembered not in taken and is_free("127.0.0.1", remembered):
        return remembered
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port


def choose_block(remembered: int, count: int, taken: frozenset[int] = frozenset()) -> int:
    """Return the first of so many ports of loopback in a row, the remembered one if all are still free.

    Args:
        remembered: The first of the last run, 0 for none.
        count: How many; at least 1.
        taken: Ports that this stack gives to somebody else.
    """
    first = remembered or choose(0, taken)
    while first + count > _PORTS or not all(port not in taken and is_free("127.0.0.1", port) for port in range(first, first + count)):
        first = choose(0, taken)
    return first


def require_free(name: str, host: str, port: int) -> None:
    """Do nothing when the port is free.

    Args:
        name: The setting that chooses the port, for the message.
        host: The address a server will bind to.
        port: 1..65535.

    Raises:
        StackError: It is busy; the message names the process that holds it when the system tells.
    """
    if not is_free(host, port):
        raise StackError(f"{name} {port} is busy: {_holder(port)} listens there; stop it or set {name} to another port")


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "another process"
