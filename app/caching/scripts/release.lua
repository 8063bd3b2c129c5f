-- Gives a lease back, if it is still ours: the load failed, and the next reader shall not wait for it.
-- KEYS    lease
-- ARGV    token
-- Returns 1, or 0 when the lease is gone or somebody else's
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
