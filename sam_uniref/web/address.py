"""Whether the page can be shown at an address."""

from __future__ import annotations

import os
import socket


def check_address(host: str, port: int | None = None) -> None:
    """Refuse an address that can't be listened at, which Gradio would try port by port, for minutes.

    Args:
        host: A name or an address, an IPv6 one with or without brackets.
        port: None asks for the host alone.

    Raises:
        ValueError: If there is no such host, it is another machine's, or the port is taken.
    """
    place = host if port is None else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host.strip("[]"), port or 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"there is no host {host!r} ({error}); --host takes an address of this machine") from error
    family, kind, protocol, _, address = found[0]
    try:
        with socket.socket(family, kind, protocol) as tried:
            if os.name == "posix":  # as servers do: a port whose last connections are still ending is free
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        raise ValueError(
            f"can't listen at {place} ({error.strerror}); --host takes an address of this machine, and --port one that "
            "is free"
        ) from error
