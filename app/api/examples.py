"""Examples of requests for the description; each is one that runs, with an id of the reader's own in the place of that in the path."""

from typing import Any

_EPISODE_ID = "00000000-0000-4000-8000-000000000001"
"""Stands for the id of an episode that the reader has stored."""

BODIES: dict[str, dict[str, Any]] = {
    "episodes.store_episode": {
        "a turn of a conversation": {
            "content": "Lena prefers trains to planes, and never travels on Mondays.",
            "actor": "Lena",
            "session_id": "travel-2026-11",
            "tags": ["travel", "preference"],
            "importance_score": 0.8,
            "idempotency_key": "turn-17",
        },
        "an action with its facts": {
            "action_type": "file_edited",
            "action_details": {"path": "app/main.py", "lines": 12},
            "context_state": {"task": "fix the login"},
            "occurred_at": "2026-11-26T09:30:00Z",
            "project": "cerebro",
            "metadata": {"commit": "5450b64"},
        },
    },
    "episodes.store_episodes": {
        "two at once": {
            "items": [
                {"content": "The kettle is on the stove.", "tags": ["kitchen"]},
                {"content": "El pan está en el horno.", "language": "es", "idempotency_key": "bread-1"},
            ]
        }
    },
    "episodes.change_episode": {
        "new words, and only while nobody else was faster": {"content": "Lena prefers trains.", "expected_version": 1},
        "other tags": {"tags": ["travel"], "importance_score": 0.9},
    },
    "search.search_memory": {
        "by meaning and words": {"query": "How does Lena like to travel?", "limit": 5},
        "with filters, and newer ones first among equals": {
            "query": "trains",
            "mode": "hybrid",
            "filters": {"tags_any": ["travel"], "session_id": "travel-2026-11", "occurred_after": "2026-01-01T00:00:00Z"},
            "recency_weight": 0.2,
        },
        "every kind of memory": {"query": "trains", "memory_types": ["episodic", "semantic", "working"]},
    },
    "working.create_context": {"under a new id": {"active_content": {"goal": "book the train"}, "ttl_seconds": 3600}},
    "working.put_context": {
        "what the agent has in mind": {"active_content": {"goal": "book the train", "step": 2}, "priority": "high", "ttl_seconds": 3600}
    },
    "semantic.store_semantic": {
        "something known": {
            "concept": "Lena",
            "definition": "A traveller who prefers trains.",
            "relationships": {"likes": ["trains"]},
            "confidence_score": 0.9,
        }
    },
    "semantic.change_semantic": {"more certain": {"confidence_score": 0.95}},
    "consciousness.create_block": {"who the agent is": {"label": "persona", "value": "Calm and exact."}},
    "consciousness.put_block": {"another value": {"value": "Calm, exact and brief."}},
    "consciousness.create_checkpoint": {"before a risky step": {"checkpoint_type": "manual", "state_data": {"step": 7}}},
    "consciousness.restore_checkpoint": {"compare only": {}, "and write the blocks back": {"write_blocks": True}},
    "integrity.verify": {"a range": {"first_seq": 1, "last_seq": 1000}},
    "queue.replay_dead_rows": {"everything": {"all": True}},
    "keys.create_key": {"for one agent, for a month": {"role": "agent", "name": "travel bot", "agent_id": "lena-bot", "expires_days": 30}},
    "keys.rotate_key": {"the old one works for an hour more": {"grace_seconds": 3600}},
}
"""Bodies by endpoint and by what they show. Each endpoint that takes JSON has one."""

LINES = (
    '{"type":"header","format":"nexus-cerebro-export","version":1}\n'
    f'{{"type":"episode","episode_id":"{_EPISODE_ID}","content":"The kettle is on the stove.","occurred_at":"2026-11-26T09:30:00Z"}}\n'
    '{"type":"end","counts":{"episode":1}}\n'
)
"""A file for the import."""

PATHS: dict[str, str] = {
    "agent_id": "lena-bot",
    "context_id": "plan",
    "episode_id": _EPISODE_ID,
    "memory_id": _EPISODE_ID,
    "checkpoint_id": _EPISODE_ID,
    "key_id": _EPISODE_ID,
    "label": "persona",
}
"""Values of parameters in paths."""
