    -- Part of an INSERT INTO memory_system.embeddings_queue AS q: work that is known already starts anew, whatever state it was in.
    -- The token goes, so a worker that still encodes the old text cannot finish; the attempts of another text do not count.
    -- The agent is the memory's, also where somebody changed that by hand.
    ON CONFLICT (target_kind, target_id, model_id) DO UPDATE
        SET generation = q.generation + 1, agent_id = excluded.agent_id, input_sha256 = excluded.input_sha256, input_chars = excluded.input_chars,
            state = 'pending', priority = excluded.priority, due_at = now(), claim_token = NULL, started_at = NULL,
            lease_until = NULL, retry_count = 0, solo = false, last_error = NULL, traceparent = excluded.traceparent,
            enqueued_at = now(), processed_at = NULL
