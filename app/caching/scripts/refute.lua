-- Removes a claim, if it still holds and the record is still of our epoch.
-- KEYS    record
-- ARGV    our epoch, claim
-- Returns whether it did
local epoch, claim = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'claim'))
if epoch ~= ARGV[1] or claim ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], 'claim', 'claims_for')
