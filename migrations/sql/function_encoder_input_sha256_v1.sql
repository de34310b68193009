-- The hash of exactly what the encoder is given: the actor, when there is one, then the content.
-- The worker computes the same hash over the text it encoded; a vector is served only while the two are equal.
CREATE FUNCTION nexus_memory.encoder_input_sha256(actor text, content text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.sha256(pg_catalog.convert_to(
    CASE WHEN actor IS NULL THEN content ELSE actor || ': ' || content END, 'UTF8'));
