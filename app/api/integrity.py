"""Routes that prove what is stored."""

from collections import Counter

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api.answers import json_answer
from app.api.authentication import AgentMismatch, find_agent
from app.api.schemas.integrity import IdentityAnswer, ReceiptBody, VerifyAnswer, VerifyBody
from app.api.services import services
from app.integrity.service import ReceiptClaim, Verdict

blueprint = APIBlueprint("integrity", __name__, abp_tags=[Tag(name="integrity")])


def _verify_receipts(agent_id: str | None, receipts: list[ReceiptBody]) -> list[Verdict]:
    agents = {agent_id, *(receipt.agent_id for receipt in receipts)} - {None}
    if len(agents) > 1:
        raise AgentMismatch("a receipt belongs to another agent than the one that verifies; verify each agent's receipts apart")
    agent_id = next(iter(agents), None)
    claims = [
        ReceiptClaim(
            episode_id=receipt.episode_id,
            seq=receipt.seq,
            version=receipt.version,
            content_sha256=receipt.content_sha256,
            nonce=receipt.nonce,
        )
        for receipt in receipts
    ]
    return services().integrity.verify_receipts(agent_id, claims)


@blueprint.post("/integrity/verify", responses={200: VerifyAnswer})
def verify(body: VerifyBody) -> Response:
    """Say what became of receipts, or of a range of accepted episodes.

    A key that is bound to an agent verifies that agent's episodes only.
    """
    agent_id = find_agent(body.agent_id)
    if body.receipts is not None:
        verdicts = _verify_receipts(agent_id, body.receipts)
    else:
        verdicts = services().integrity.verify_range(agent_id, body.first_seq or 0, body.last_seq or 0)
    return json_answer({"verdicts": verdicts, "summary": Counter(verdict.verdict for verdict in verdicts)})


@blueprint.get("/integrity", responses={200: IdentityAnswer})
def get_identity() -> Response:
    """Show the accounting identity over all agents; drift must be 0."""
    return json_answer(services().integrity.identity())
