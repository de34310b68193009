-- The priority lane of an importance: 0 critical, 1 high, 2 normal, 3 low. Smaller is claimed first.
CREATE FUNCTION memory_system.lane(importance double precision) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN importance >= 0.9 THEN 0 WHEN importance >= 0.7 THEN 1 WHEN importance >= 0.3 THEN 2 ELSE 3 END::smallint;
