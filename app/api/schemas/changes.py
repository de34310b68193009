"""What every PATCH of a versioned memory has in common."""

from typing import Annotated, Any, Self

from pydantic import Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from app.fields import AgentId, StrictModel


class Changes(StrictModel):
    """Fields to change; those left out stay as they are."""

    agent_id: AgentId | None = Field(None, description="Whose memory; needed with an administrator's key unless X-Agent-Id says it.")
    expected_version: Annotated[int, Strict(), Field(ge=1, lt=2**31)] | None = Field(
        None, description="Change it only while this is its version; otherwise 409."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.changes():
            raise PydanticCustomError("nothing_to_change", "name at least one field to change")
        return self

    def changes(self) -> dict[str, Any]:
        """Return the fields that the request names."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"agent_id", "expected_version"}}
