-- What the ninth revision makes anew, by name.
GRANT EXECUTE ON FUNCTION memory_system.queue_lanes() TO nexus_app, nexus_worker;
