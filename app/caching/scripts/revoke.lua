-- Removes a value, and takes over its lease, for a writer that is about to commit: from then on nobody may read the old
-- value, and no load in flight may fill it.
-- KEYS    value, lease
-- ARGV    the writer's token, lease in ms
-- A stream has what is pending in counters of the same name.
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
