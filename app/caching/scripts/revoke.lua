-- A writer takes a value and its lease away, before it commits: nobody may read the old value after that, and no load
-- under way may fill it.
-- KEYS    value, lease
-- ARGV    the writer's token, lease in ms
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
