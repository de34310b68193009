-- The text search configuration of a language; 'simple' for a language without one.
-- A function instead of a regconfig column: a dump of an OID does not restore, a name does.
CREATE FUNCTION nexus_memory.search_config(language text) RETURNS regconfig
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE language
    WHEN 'en' THEN 'pg_catalog.english'::regconfig
    WHEN 'es' THEN 'pg_catalog.spanish'::regconfig
    ELSE 'pg_catalog.simple'::regconfig END;
