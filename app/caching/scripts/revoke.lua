-- Removes a value, and takes over its lease, for a writer that is about to commit: from then on nobody may read the old
-- value, and no load in flight may fill it.
-- KEYS    value, lease
-- ARGV    the writer's token, lease in ms
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
