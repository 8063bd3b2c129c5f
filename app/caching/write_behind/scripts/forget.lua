-- Forgets totals that somebody changed in the database, past the stream.
-- KEYS    epoch, then the totals
-- ARGV    a random epoch
-- What a reader has seen until now is no base for a total any more.
redis.call('SET', KEYS[1], ARGV[1])
for i = 2, #KEYS do redis.call('DEL', KEYS[i]) end
