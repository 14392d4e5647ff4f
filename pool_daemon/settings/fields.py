"""The base class of the sections of the settings, and the types of their checked fields."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ValidationInfo


class Section(BaseModel):
    """The base of every section: frozen, closed to unknown keys, and strict about numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `port = true`, which would otherwise pass for 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("must not be true or false")
        return value


def takes(field: FieldInfo) -> str | None:
    """Describe what a field accepts, bounds included; None if that is any text."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if kind in (int, float):
        least = next(rule.ge for rule in field.metadata if hasattr(rule, "ge"))
        most = next(rule.le for rule in field.metadata if hasattr(rule, "le"))
        return f"a {'whole ' if kind is int else ''}number from {least} to {most}"
    return "true or false" if kind is bool else None


_HOST = r"(\[[0-9A-Fa-f:.%]+\] (:\d+)? | [^\s/?@,\[\]]+)"  # an IPv6 address stands in brackets
_MONGODB_URI = re.compile(
    r"""mongodb(\+srv)?://
    ([^\s/?@:]+ (:[^\s/?@:]*)? @)?  # user and password, escaped
    HOST (,HOST)*
    (/[^\s/?@]*)? (\?\S*)?          # database and options""".replace("HOST", _HOST),
    re.VERBOSE,
)
_DATABASE_NAME = re.compile(r'[^/\\. "$*<>:|?\x00]{1,63}')


def _usable_uri(uri: SecretStr) -> SecretStr:
    if _MONGODB_URI.fullmatch(uri.get_secret_value()):
        return uri
    raise ValueError(
        "must look like mongodb://HOST/?OPTIONS or mongodb+srv://HOST, with USER:PASSWORD@ before HOST; "
        "in user and password write : / ? @ as %3A %2F %3F %40, an IPv6 address in brackets"
    )


def _usable_name(name: str) -> str:
    if _DATABASE_NAME.fullmatch(name):
        return name
    raise ValueError('must have 1 to 63 characters, none of them a space or one of / \\ . " $ * < > : | ?')


Uri = Annotated[SecretStr, AfterValidator(_usable_uri)]
DatabaseName = Annotated[str, AfterValidator(_usable_name)]


def _usable_path(path: Path) -> Path:
    """Refuse the empty path, which would mean the working directory, and `~`, which only a shell expands."""
    if path == Path() or str(path).startswith("~"):
        raise ValueError("must be a path written out: not empty, no ~")
    return path


UsablePath = Annotated[Path, AfterValidator(_usable_path)]

_IDENTITY = re.compile(r"[!-~]{1,128}")


def _usable_identity(identity: str) -> str:
    if _IDENTITY.fullmatch(identity):
        return identity
    raise ValueError("must have 1 to 128 visible ASCII characters and no space")


Identity = Annotated[str, AfterValidator(_usable_identity)]


def split(value: Any) -> Any:
    """Split text with commas, as in an environment variable, into a list."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(split)]
