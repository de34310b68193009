-- The words of an episode: as written ('simple', so that every word can be found, stop words too) and as stems.
-- A tsvector holds at most 1 MiB; only a huge text can pass that, so only a huge text pays for the guard. A text
-- too rich for both forms is indexed as written; one too rich even for that, by its first 100,000 characters
-- (its vector chunks still cover all of it).
CREATE FUNCTION nexus_memory.episode_search_vector(language text, actor text, content text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    words text := CASE WHEN actor IS NULL THEN content ELSE actor || ' ' || content END;
    config regconfig := nexus_memory.search_config(language);
BEGIN
    IF octet_length(words) < 150000 THEN
        IF config = 'pg_catalog.simple'::regconfig THEN
            RETURN to_tsvector('pg_catalog.simple', words);
        END IF;
        RETURN to_tsvector('pg_catalog.simple', words) || to_tsvector(config, words);
    END IF;
    BEGIN
        RETURN to_tsvector('pg_catalog.simple', words) || to_tsvector(config, words);
    EXCEPTION WHEN program_limit_exceeded THEN
        BEGIN
            RETURN to_tsvector('pg_catalog.simple', words);
        EXCEPTION WHEN program_limit_exceeded THEN
            RETURN to_tsvector('pg_catalog.simple', left(words, 100000));
        END;
    END;
END $$;
