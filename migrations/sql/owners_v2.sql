-- The definer needs CREATE on a schema just while it takes its functions over.
GRANT CREATE ON SCHEMA memory_system TO nexus_definer;
ALTER FUNCTION memory_system.dead_causes(integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.dead_rows(text, uuid, integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.replay_dead(uuid[], text, timestamptz, integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.queue_lanes() OWNER TO nexus_definer;
ALTER FUNCTION memory_system.enqueue_for_model(text, smallint, integer) OWNER TO nexus_definer;
ALTER FUNCTION memory_system.drop_model_work(smallint, integer) OWNER TO nexus_definer;
REVOKE CREATE ON SCHEMA memory_system FROM nexus_definer;
