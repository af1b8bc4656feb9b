"""What all sections of the config have in common: frozen, no unknown key, and secrets that do not show.

Text that came through `${env:}` or `${file:}` works in the fields but is `***` in `repr`, `model_dump` and `redacted`.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_serializer, model_validator
from pydantic import ModelWrapValidatorHandler as Handler
from pydantic import SerializerFunctionWrapHandler as Serializer

from proxy.config.problem import WrongValueError
from proxy.config.secrets import holds_secret, mask


def optional(default: Any, description: str, *examples: Any, **options: Any) -> Any:
    """A field with a default, written as the config file would write it."""
    return Field(default=default, description=description, examples=list(examples) or [default], **options)


class Model(BaseModel):
    """A section of the config that remembers which of its values carried a secret."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True, use_attribute_docstrings=False
    )
    # pydantic wants the underscore on what is no field.
    _hidden: dict[str, object] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def remember_secrets(cls, data: Any, handler: Handler[Self]) -> Self:
        data = cls.expand(data)
        model = handler(data)
        if isinstance(data, Mapping):
            model._hidden.update((key, mask(value)) for key, value in data.items() if holds_secret(value))
        return model

    @classmethod
    def expand(cls, data: Any) -> Any:
        """Short forms written in full."""
        return data

    @model_serializer(mode="wrap")
    def hide_secrets(self, serializer: Serializer) -> dict[str, Any]:
        data: dict[str, Any] = serializer(self)
        # A section hides its own secrets; here only plain values are replaced.
        data.update((key, value) for key, value in self._hidden.items() if not holds_model(getattr(self, key)))
        return data

    def redacted(self) -> dict[str, Any]:
        """The effective values as JSON types, durations and sizes in the config's own notation, secrets as `***`."""
        return self.model_dump(mode="json")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.redacted().items())})"

    def __str__(self) -> str:
        return repr(self)


def holds_model(value: object) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    return any(isinstance(item, BaseModel) for item in items)


def require_one(what: str, keys: tuple[str, ...], model: Model, example: str) -> None:
    written = [key for key in keys if getattr(model, key) is not None]
    listed = f"{', '.join(keys[:-1])} and {keys[-1]}"
    if not written:
        raise WrongValueError(f"{what} needs one of {listed}", f"write one, such as {example}")
    if len(written) > 1:
        raise WrongValueError(f"{what} takes only one of {listed}, here are {' and '.join(written)}", "keep one")
