-- What the second revision adds, by name.
GRANT UPDATE (claimed_at) ON memory_system.embeddings_queue TO nexus_worker;
GRANT SELECT ON memory_system.agent_models TO nexus_app, nexus_ro, nexus_worker, nexus_backup;
GRANT INSERT, DELETE ON memory_system.agent_models TO nexus_worker;
GRANT EXECUTE ON FUNCTION memory_system.dead_causes(integer), memory_system.dead_rows(text, uuid, integer),
    memory_system.replay_dead(uuid[], text, timestamptz, integer), memory_system.queue_lanes() TO nexus_app, nexus_worker;
GRANT EXECUTE ON FUNCTION memory_system.enqueue_for_model(text, smallint, integer), memory_system.drop_model_work(smallint, integer) TO nexus_worker;
