"""Where metrics, health and the page are served."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from pool_daemon.settings.sections.section import Section


def _split(value: Any) -> Any:
    """Take names with commas between them, as an environment variable gives them, for a list."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_split)]


class Http(Section):
    """Metrics, health and a page that shows both, for whoever may reach the address; nothing can be changed there."""

    enabled: bool = Field(
        default=True,
        description="Whether to listen at all. Without it neither Prometheus nor a probe can ask.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. The default is for this machine alone; in a container it is "
        '"0.0.0.0", or "::" for IPv6. Whoever reaches it sees the ids of pools and customers.',
    )
    port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 takes any free one and logs which.",
    )
    allowed_hosts: Names = Field(
        default=[],
        description="Host names under which requests may ask, beside localhost and every IP address: those of a "
        'Service or a proxy in front of it. A list, or text with commas, such as "grid.example, pool-daemon". A web '
        "site whose name was made to lead here is refused, so that no browser can be used to look inside.",
    )
