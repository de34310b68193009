"""Routes that concern an agent as a whole."""

from flask import Response, g
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api.answers import json_answer
from app.api.authentication import require_agent
from app.api.schemas.agents import AgentPath, ForgottenAnswer
from app.api.services import services
from app.identity.permissions import GRANTS, Permission

blueprint = APIBlueprint("agents", __name__, abp_tags=[Tag(name="agents")])


@blueprint.delete("/agents/<agent_id>", responses={200: ForgottenAnswer})
def forget_agent(path: AgentPath) -> Response:
    """Forget an agent in every store, and count what is left of it.

    An agent with read-only memory blocks is forgotten by an administrator only. Its keys stay valid; tombstones of its episodes stay in
    the ledger, without content hash and nonce. Interrupted, it may be repeated.
    """
    agent_id = require_agent(path.agent_id)
    may_unlock = Permission.UNLOCK_BLOCKS in GRANTS[g.principal.role]
    return json_answer(services().agents.forget(agent_id, g.principal.key_id, may_unlock=may_unlock))
