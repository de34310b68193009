-- BEFORE UPDATE or DELETE of a memory block: a read-only block stays as it is; making it writable again is its own step.
CREATE FUNCTION consciousness.trigger_guard_block() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.read_only THEN
            RAISE EXCEPTION 'the memory block is read-only' USING ERRCODE = 'read_only_sql_transaction';
        END IF;
        RETURN OLD;
    END IF;
    IF NEW.value IS DISTINCT FROM OLD.value OR NEW.label IS DISTINCT FROM OLD.label THEN
        IF OLD.read_only THEN
            RAISE EXCEPTION 'the memory block is read-only' USING ERRCODE = 'read_only_sql_transaction';
        END IF;
        NEW.version := OLD.version + 1;
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END $$;
