"""Routes of memory blocks and checkpoints."""

from typing import Any

from flask import Response, g
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from app.api import pagination
from app.api.answers import json_answer
from app.api.authentication import require_agent
from app.api.schemas.consciousness import (
    BlockAnswer,
    BlockBody,
    BlockListAnswer,
    BlockPath,
    CheckpointAnswer,
    CheckpointBody,
    CheckpointListAnswer,
    CheckpointListQuery,
    CheckpointPath,
    ForgottenBlockAnswer,
    NewBlockBody,
    PageQuery,
    RestoreAnswer,
    RestoreBody,
)
from app.api.schemas.episodes import AgentQuery
from app.api.services import services
from app.consciousness.models import BlockView, CheckpointView, NewCheckpoint
from app.identity.permissions import GRANTS, Permission

blueprint = APIBlueprint("consciousness", __name__, abp_tags=[Tag(name="consciousness")])


def _block(view: BlockView) -> dict[str, Any]:
    return {
        "label": view.label,
        "agent_id": view.agent_id,
        "value": view.value,
        "read_only": view.read_only,
        "version": view.version,
        "created_at": view.created_at,
        "updated_at": view.updated_at,
    }


def _checkpoint(view: CheckpointView) -> dict[str, Any]:
    return {
        "checkpoint_id": view.checkpoint_id,
        "agent_id": view.agent_id,
        "checkpoint_type": view.checkpoint_type,
        "state_data": view.state_data,
        "blocks": view.blocks,
        "identity_hash": view.identity_hash,
        "continuity_score": view.continuity_score,
        "metadata": view.metadata,
        "created_at": view.created_at,
    }


@blueprint.post("/consciousness/blocks", responses={201: BlockAnswer})
def create_block(body: NewBlockBody) -> Response:
    """Store a memory block under a new label; 409 when the label is taken."""
    agent_id = require_agent(body.agent_id)
    return json_answer(_block(services().consciousness.create_block(agent_id, body.label, body.value, read_only=body.read_only)), 201)


@blueprint.put("/consciousness/blocks/<label>", responses={200: BlockAnswer, 201: BlockAnswer})
def put_block(path: BlockPath, body: BlockBody) -> Response:
    """Give a memory block a value: 201 when it is new, else 200."""
    agent_id = require_agent(body.agent_id)
    block, is_new = services().consciousness.put_block(
        agent_id,
        path.label,
        body.value,
        read_only=body.read_only,
        expected_version=body.expected_version,
        may_unlock=Permission.UNLOCK_BLOCKS in GRANTS[g.principal.role],
        by=g.principal.key_id,
    )
    return json_answer(_block(block), 201 if is_new else 200)


@blueprint.get("/consciousness/blocks/<label>", responses={200: BlockAnswer})
def get_block(path: BlockPath, query: AgentQuery) -> Response:
    """Show a memory block."""
    agent_id = require_agent(query.agent_id)
    return json_answer(_block(services().consciousness.get_block(agent_id, path.label)))


@blueprint.delete("/consciousness/blocks/<label>", responses={200: ForgottenBlockAnswer})
def delete_block(path: BlockPath, query: AgentQuery) -> Response:
    """Delete a memory block; 409 when it is read-only."""
    agent_id = require_agent(query.agent_id)
    services().consciousness.delete_block(agent_id, path.label)
    return json_answer({"label": path.label, "deleted": True})


@blueprint.get("/consciousness/blocks", responses={200: BlockListAnswer})
def list_blocks(query: PageQuery) -> Response:
    """List memory blocks in order of their labels."""
    agent_id = require_agent(query.agent_id)
    listed = ["blocks"]
    after = None
    if query.cursor is not None:
        match pagination.decode(query.cursor, listed):
            case [str(label)] if "\0" not in label:
                after = label
            case _:
                raise pagination.refuse_position()
    blocks, following = services().consciousness.list_blocks(agent_id, query.limit, after)
    cursor = None if following is None else pagination.encode(listed, [following])
    return json_answer({"items": [_block(block) for block in blocks], "next_cursor": cursor})


@blueprint.post("/consciousness/checkpoints", responses={201: CheckpointAnswer})
def create_checkpoint(body: CheckpointBody) -> Response:
    """Keep a state together with the agent's memory blocks of this moment and their identity hash."""
    agent_id = require_agent(body.agent_id)
    checkpoint = NewCheckpoint(body.checkpoint_type, body.state_data, body.metadata)
    view = services().consciousness.checkpoint(agent_id, checkpoint)
    answer = json_answer(_checkpoint(view), 201)
    answer.headers["Location"] = f"/consciousness/checkpoints/{view.checkpoint_id}"
    return answer


@blueprint.get("/consciousness/checkpoints/<checkpoint_id>", responses={200: CheckpointAnswer})
def get_checkpoint(path: CheckpointPath, query: AgentQuery) -> Response:
    """Show a checkpoint."""
    agent_id = require_agent(query.agent_id)
    return json_answer(_checkpoint(services().consciousness.get_checkpoint(agent_id, path.checkpoint_id)))


@blueprint.get("/consciousness/checkpoints", responses={200: CheckpointListAnswer})
def list_checkpoints(query: CheckpointListQuery) -> Response:
    """List checkpoints, the newest first."""
    agent_id = require_agent(query.agent_id)
    listed = ["checkpoints", query.checkpoint_type]
    after = None if query.cursor is None else pagination.decode_seq(query.cursor, listed)
    views, following = services().consciousness.list_checkpoints(agent_id, query.limit, checkpoint_type=query.checkpoint_type, after=after)
    cursor = None if following is None else pagination.encode(listed, [following])
    return json_answer({"items": [_checkpoint(view) for view in views], "next_cursor": cursor})


@blueprint.post("/consciousness/checkpoints/<checkpoint_id>/restore", responses={200: RestoreAnswer})
def restore_checkpoint(path: CheckpointPath, body: RestoreBody) -> Response:
    """Show a checkpoint's state, compute its identity hash anew, and say how far the memory blocks are still those of then."""
    agent_id = require_agent(body.agent_id)
    restored = services().consciousness.restore(agent_id, path.checkpoint_id, write_blocks=body.write_blocks)
    continuity = restored.continuity
    return json_answer(
        {
            "checkpoint": _checkpoint(restored.checkpoint),
            "is_intact": restored.is_intact,
            "current_identity_hash": restored.current_identity_hash,
            "continuity_score": continuity.score,
            "changes": {"changed": continuity.changed, "added": continuity.added, "removed": continuity.removed},
            "blocks_written": restored.blocks_written,
        }
    )
