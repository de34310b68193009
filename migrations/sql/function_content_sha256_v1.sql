-- What the bytes of a text hash to. Immutable because the encoding is named, so a generated column may use it.
CREATE FUNCTION nexus_memory.content_sha256(content text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN pg_catalog.sha256(pg_catalog.convert_to(content, 'UTF8'));
