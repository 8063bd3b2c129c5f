-- Claims the record of a Redis for an epoch to come. Whoever is believed under the present one may refute it.
-- KEYS    record
-- ARGV    claim, for which history of the database, a claim that it replaces or nothing
-- Returns the claim that stands now
local stands = redis.call('HGET', KEYS[1], 'claim')
if stands and stands ~= ARGV[3] then return stands end
-- A Redis whose memory is full takes what comes behind a command that frees some.
redis.call('HDEL', KEYS[1], 'claim', 'claims_for')
redis.call('HSET', KEYS[1], 'claim', ARGV[1], 'claims_for', ARGV[2])
return ARGV[1]
