-- Claims the record of a Redis for an epoch to come. A member of the present epoch may refute the claim.
-- KEYS    record
-- ARGV    claim, the history of the database that it is for, a claim that it replaces or nothing
-- Returns the claim that holds now
local stands = redis.call('HGET', KEYS[1], 'claim')
if stands and stands ~= ARGV[3] then return stands end
-- A Redis whose memory is full accepts a write that follows, in the same script, one that frees memory.
redis.call('HDEL', KEYS[1], 'claim', 'claims_for')
redis.call('HSET', KEYS[1], 'claim', ARGV[1], 'claims_for', ARGV[2])
return ARGV[1]
