-- Begins to read a stream: from its first entry, and not from now, for what was accepted before counts, too.
-- KEYS    stream, epoch
-- ARGV    group, a random epoch
-- Returns whether there was no group yet
local created = not redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM').err
-- Nobody knows any more what was delivered before: no total may be built on what was seen then.
if created then redis.call('SET', KEYS[2], ARGV[2]) end
return created
