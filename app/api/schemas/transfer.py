"""Answers of the routes that export and import an agent's memory."""

from pydantic import BaseModel, Field


class LineProblem(BaseModel):
    """Why one line was not stored; `status` and `code` are what a request for it alone would be answered."""

    line: int
    kind: str | None
    status: int
    code: str
    detail: str


class ImportAnswer(BaseModel):
    """What became of a file, by kind of memory."""

    lines: int
    imported: dict[str, int]
    unchanged: dict[str, int] = Field(description="There already, and equal.")
    expired: dict[str, int] = Field(description="Working memories whose time is over.")
    failed: int
    errors: list[LineProblem] = Field(description="The first hundred of those that failed.")
    is_complete: bool = Field(description="Whether the file had its end line, and as many lines of each kind as that says.")
