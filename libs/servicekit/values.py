"""Values that cost little to make."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Makes a frozen dataclass of a class, as far as the type checker goes.

    A dataclass that is frozen while it runs, too, takes 1.3 µs to make instead of 0.3, and a turn makes forty.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
