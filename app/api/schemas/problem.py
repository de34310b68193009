"""The one shape of every error answer."""

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """One thing that is wrong with the input."""

    field: str = Field(description="Where, as a dotted path; empty for the body as a whole.")
    code: str
    message: str
    index: int | None = Field(None, description="Which item of a batch.")


class Problem(BaseModel):
    """An error as RFC 9457 describes it, with a stable `code` for programs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem] | None = None
