-- What the fourth revision adds, by name.
GRANT EXECUTE ON FUNCTION nexus_memory.search_working(text, integer, text) TO nexus_app, nexus_ro;
