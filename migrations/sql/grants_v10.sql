-- What the eleventh revision adds, by name.
GRANT EXECUTE ON FUNCTION nexus_memory.turns_of(uuid[]) TO nexus_app, nexus_ro;
