-- Forgets totals that were changed in the database, bypassing the stream.
-- KEYS    generation, then the totals
-- ARGV    a random generation
-- Readers may no longer build a total on what they have seen until now.
redis.call('SET', KEYS[1], ARGV[1])
for i = 2, #KEYS do redis.call('DEL', KEYS[i]) end
