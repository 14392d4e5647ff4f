"""The example file, generated from the models: every setting with its meaning, its bounds and its default."""

import json
import textwrap
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from pool_daemon.settings.sections import SECTIONS, Settings, takes

HEAD = """\
# Settings of pool-daemon. Every setting is commented out and shows its default, or an example if it has none.
# The secrets folder ($POOL_DAEMON_SECRETS_DIR, else $CREDENTIALS_DIRECTORY; a file per secret, such as
# database__uri) ranks above this file, and the environment (such as POOL_DAEMON_DATABASE__NAME) above both.
# `pool-daemon check-config --config THIS_FILE` tells what is in force and where it came from.
"""


def example_toml() -> str:
    """Return the text of config.example.toml."""
    return HEAD + "".join(_section(name) for name in SECTIONS)


def _section(name: str) -> str:
    about = type(Settings.model_fields[name].default).__doc__ or ""
    fields = "\n".join("\n".join(_field(key, field)) for key, field in SECTIONS[name].items())
    return f"\n# {about}\n[{name}]\n{fields}\n"


def _field(key: str, field: FieldInfo) -> Iterator[str]:
    accepted = takes(field)
    explained = f"{field.description} Takes {accepted}." if accepted else field.description
    yield from textwrap.wrap(explained or "", width=110, initial_indent="# ", subsequent_indent="# ")
    value = field.examples[0] if field.default is None and field.examples else field.default
    yield f"#{key} = {json.dumps(value)}"
