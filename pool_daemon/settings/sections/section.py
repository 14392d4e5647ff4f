"""The base of every section, and the values that its fields accept."""

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ValidationInfo


class Section(BaseModel):
    """The base of every section: frozen, closed to unknown keys, and strict about numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_a_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
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
