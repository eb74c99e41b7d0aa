"""A schema as one target takes it, with what was changed and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flowkit.codec import JSON
from flowkit.schema_paths import Schema
from flowkit.targets.conversions import SAME, Conversion

NoteKind = Literal["lowered", "dropped", "refused", "default", "references"]


@dataclass(frozen=True, slots=True)
class Note:
    """What differs at `path` (a JSON pointer into the faithful schema) and why.

    `lowered`: another shape, brought back by itself. `dropped`: a rule that the target can't hold the model to.
    `refused`: why the tool isn't strict. `default`: a default that the model can't ask for any more. `references`:
    why no reference is offered.
    """

    kind: NoteKind
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Lowered:
    """A schema for one target, and the way back; `notes` tell what differs from the faithful schema."""

    schema: Schema
    strict: bool
    notes: tuple[Note, ...] = ()
    conversion: Conversion = SAME

    def raise_arguments(self, arguments: Mapping[str, JSON]) -> dict[str, JSON]:
        """Convert the model's arguments to the faithful schema; they are not yet validated."""
        raised = self.conversion.raised(dict(arguments))
        return raised if isinstance(raised, dict) else dict(arguments)

    def lower_arguments(self, arguments: Mapping[str, JSON]) -> dict[str, JSON]:
        """Convert valid arguments to the form that this target's model would have written."""
        lowered = self.conversion.lowered(dict(arguments))
        return lowered if isinstance(lowered, dict) else dict(arguments)
