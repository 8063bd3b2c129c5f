-- Which of some entries are in the stream.
-- KEYS    stream
-- ARGV    the ids
-- Returns for each entry 1 or 0
local present = {}
for i, id in ipairs(ARGV) do present[i] = #redis.call('XRANGE', KEYS[1], id, id) end
return present
