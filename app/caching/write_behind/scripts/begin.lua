-- Creates the group of a stream. It reads from the first entry, not from now: what was accepted before counts, too.
-- KEYS    stream, generation
-- ARGV    group, a random generation
-- Returns whether there was no group yet
local created = not redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM').err
-- Earlier deliveries are no longer known, so no total may be built on what was seen before.
if created then redis.call('SET', KEYS[2], ARGV[2]) end
return created
