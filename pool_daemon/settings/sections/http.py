"""Where metrics, health and the page are served."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pool_daemon.settings.sections.section import Section


def _split(value: Any) -> Any:
    """Split text with commas, as in an environment variable, into a list."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_split)]


class Http(Section):
    """Metrics, health and a status page for every client that reaches the address; read only."""

    enabled: bool = Field(
        default=True,
        description="Whether to listen at all. Without it neither metrics nor probes are available.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description='Address to listen on. The default is for this machine alone; in a container it is "0.0.0.0", or '
        '"::" for IPv6. Every client that reaches it sees the ids of pools and customers.',
    )
    port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 takes any free one and logs which.",
    )
    allowed_hosts: Names = Field(
        default=[],
        description="Host names accepted in requests, beside localhost and every IP address: those of a Service or a "
        'proxy in front of the daemon. A list, or text with commas, such as "grid.example, pool-daemon". Requests '
        "for other names are refused: a web site could point its name here and have a browser read the status.",
    )
