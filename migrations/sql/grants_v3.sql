-- What the third revision adds, by name.
GRANT SELECT, DELETE ON nexus_memory.semantic_memories, nexus_memory.working_memory_contexts, nexus_memory.projects,
    consciousness.memory_blocks, consciousness.consciousness_checkpoints, memory_system.agent_models TO nexus_definer;
GRANT UPDATE (read_only) ON consciousness.memory_blocks TO nexus_definer;
GRANT EXECUTE ON FUNCTION nexus_memory.list_episodes(jsonb, boolean, timestamptz, bigint, integer), memory_system.forget_episodes(integer),
    memory_system.forget_others(integer), memory_system.agent_rows(), memory_system.known_episodes(uuid[]) TO nexus_app;
