"""Addresses of a server that asks for a password: by another way, or as another user."""

import re


def through(uri: str, *ports: int, options: str = "") -> str:
    """Return how the user of an address connects by way of these ports of loopback."""
    user = uri.removeprefix("mongodb://").rpartition("@")[0]
    return f"mongodb://{user}@{','.join(f'127.0.0.1:{port}' for port in ports)}/?{options}"


def as_user(uri: str, name: str, password: str, *, database: str = "admin") -> str:
    """Return how another user, of that database, connects to the server of an address."""
    return re.sub("//[^@]*@", f"//{name}:{password}@", uri) + f"&authSource={database}"


def as_stranger(uri: str) -> str:
    """Return the address without user and password."""
    return re.sub("//[^@]*@", "//", uri)
