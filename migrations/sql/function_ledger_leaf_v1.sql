-- The leaf that the ledger keeps of an event: sha256 over nonce (16 bytes), episode id (16 bytes), version (4 bytes,
-- big-endian) and the content's sha256 (32 bytes). All are of fixed length, so no two different events share their bytes.
CREATE FUNCTION memory_system.ledger_leaf(nonce uuid, episode_id uuid, version integer, content_sha256 bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN pg_catalog.sha256(pg_catalog.uuid_send(nonce) || pg_catalog.uuid_send(episode_id)
    || pg_catalog.int4send(version) || content_sha256);
