"""The search box: an agent's memories for a query, and where each result's score comes from."""

from typing import Any, Literal

from flask import Response, g, session
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field

from app.api.authentication import require_agent
from app.api.schemas.search import MemoryType, SearchBody
from app.api.search import to_query
from app.api.services import services
from app.console import breakdown, forms, pages
from app.fields import AgentId, SearchText, StrictModel, Text128, Text256

blueprint = APIBlueprint("search", __name__, doc_ui=False)

MOST_AGENTS = 200


class SearchForm(StrictModel):
    """What somebody filled in; the API's own body says what is allowed."""

    query: SearchText
    agent_id: AgentId | None = None
    mode: Literal["hybrid", "vector", "keyword"] = "hybrid"
    limit: int = 10
    memory_types: list[MemoryType] = Field(default=["episodic"])
    session_id: Text256 | None = None
    actor: Text128 | None = None
    tags: str = ""
    recency_weight: float = 0.0
    importance_weight: float = 0.0

    def to_body(self) -> SearchBody:
        """Return the same as the API's body.

        Raises:
            InvalidRequest: Something is wrong; it names what.
        """
        tags = [tag.strip() for tag in self.tags.split(",") if tag.strip()]
        filters = {"session_id": self.session_id, "actor": self.actor, "tags_all": tags or None}
        values = self.model_dump(exclude={"session_id", "actor", "tags", "agent_id"})
        return forms.check(SearchBody, values | {"filters": {name: value for name, value in filters.items() if value is not None}})


def agents() -> list[str]:
    """Return agents to choose from: none for a key that is bound to one."""
    if g.principal.agent_id is not None:
        return []
    return [each["agent_id"] for each in services().stats.stats(None, per_agent=True)["per_agent"][:MOST_AGENTS]]


@blueprint.get("/search")
def show_search() -> Response:
    """Show the empty form."""
    return pages.page("search.html", agents=agents(), form=None, agent_id=session.get("agent", ""), answer=None)


@blueprint.post("/search")
def find() -> Response:
    """Show what a search finds. The query stands in no address, so neither in a log nor in the browser's history."""
    form = forms.read_form(SearchForm, lists=frozenset({"memory_types"}))
    agent_id = require_agent(form.agent_id)
    answer = services().search.search(agent_id, to_query(form.to_body()))
    results = [(hit, breakdown.explain(hit.score, hit.score_breakdown)) for hit in answer.results]
    session["agent"] = agent_id
    values: dict[str, Any] = {"answer": answer, "results": results, "agent_id": agent_id, "form": form}
    if pages.is_partial():
        return pages.page("search_part.html", **values)
    return pages.page("search.html", agents=agents(), **values)
