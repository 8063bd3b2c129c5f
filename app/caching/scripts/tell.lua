-- Writes an epoch to a Redis, if it has no record, or under a claim that still holds. This removes all earlier beats.
-- KEYS    record
-- ARGV    claim or nothing, then the fields of the record and their values
-- Returns whether it did
local record = redis.call('HMGET', KEYS[1], 'epoch', 'claim')
if record[1] and record[2] ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
