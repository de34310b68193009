-- AFTER INSERT, statement-level: any insert of an episode is an acceptance, also one by plain SQL.
CREATE FUNCTION memory_system.trigger_record_acceptance() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO memory_system.ledger
        (episode_id, seq, agent_id, version, event, leaf, content_sha256, nonce, idempotency_key_sha256)
    SELECT n.episode_id, n.seq, n.agent_id, n.version, 'accepted',
           memory_system.ledger_leaf(n.receipt_nonce, n.episode_id, n.version, n.content_sha256),
           n.content_sha256, n.receipt_nonce, sha256(convert_to(n.idempotency_key, 'UTF8'))
    FROM new_rows n
    ORDER BY n.seq;
    RETURN NULL;
END $$;
