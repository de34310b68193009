"""Routes that prove what is stored."""

from collections import Counter
from dataclasses import asdict

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api.answers import json_answer
from app.api.authentication import AgentMismatch, find_agent
from app.api.schemas.episodes import EpisodePath
from app.api.schemas.integrity import (
    HeadsAnswer,
    HeadsQuery,
    IdentityAnswer,
    ProofAnswer,
    ProofQuery,
    ReceiptBody,
    VerifyAnswer,
    VerifyBody,
)
from app.api.services import services
from app.integrity.proofs import head_to_json, proof_to_json
from app.integrity.service import ReceiptClaim, Verdict

blueprint = APIBlueprint("integrity", __name__, abp_tags=[Tag(name="integrity")])


def verify_receipts(agent_id: str | None, receipts: list[ReceiptBody]) -> list[Verdict]:
    """Return a verdict for each receipt, in order.

    Raises:
        AgentMismatch: Receipts of different agents, or of another one than `agent_id`.
    """
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
        verdicts = verify_receipts(agent_id, body.receipts)
    else:
        verdicts = services().integrity.verify_range(agent_id, body.first_seq or 0, body.last_seq or 0)
    return json_answer({"verdicts": verdicts, "summary": Counter(verdict.verdict for verdict in verdicts)})


@blueprint.get("/integrity", responses={200: IdentityAnswer})
def get_identity() -> Response:
    """Show the accounting identity over all agents, and that of semantic memories; drift must be 0."""
    integrity = services().integrity
    return json_answer({**asdict(integrity.identity()), "semantic": integrity.semantic_identity()})


@blueprint.get("/integrity/heads", responses={200: HeadsAnswer})
def get_heads(query: HeadsQuery) -> Response:
    """Show the signed heads of the sealed ledger, from which anyone can check a receipt without this server."""
    found = services().proofs.heads(query.since)
    consistency = None if found.consistency is None else [step.hex() for step in found.consistency]
    return json_answer({"heads": [head_to_json(signed) for signed in found.heads], "consistency": consistency})


@blueprint.get("/integrity/proof/<episode_id>", responses={200: ProofAnswer})
def get_proof(path: EpisodePath, query: ProofQuery) -> Response:
    """Prove that a version of an episode stands in the sealed ledger; after a deletion too."""
    agent_id = find_agent(query.agent_id)
    return json_answer(proof_to_json(services().proofs.prove(agent_id, path.episode_id, query.version)))
