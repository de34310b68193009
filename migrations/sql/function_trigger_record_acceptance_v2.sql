-- AFTER INSERT, statement-level: any insert of an episode is an acceptance, also one by plain SQL.
CREATE FUNCTION memory_system.trigger_record_acceptance() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO memory_system.ledger
        (episode_id, seq, agent_id, version, event, leaf, content_sha256, nonce, idempotency_key_sha256, attributes_sha256)
    SELECT e.episode_id, e.seq, e.agent_id, e.version, 'accepted',
           memory_system.ledger_leaf(e.receipt_nonce, e.episode_id, e.version, e.content_sha256),
           e.content_sha256, e.receipt_nonce, sha256(convert_to(e.idempotency_key, 'UTF8')),
    -- include part_attributes_v1
    FROM new_rows e
    ORDER BY e.seq;
    RETURN NULL;
END $$;
