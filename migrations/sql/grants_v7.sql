-- What the seventh revision adds, by name.
GRANT EXECUTE ON FUNCTION memory_system.repair_vectors(uuid[]) TO nexus_worker;
-- FOR UPDATE needs the right to update something.
GRANT UPDATE (updated_at) ON nexus_memory.zep_episodic_memory TO nexus_definer;
