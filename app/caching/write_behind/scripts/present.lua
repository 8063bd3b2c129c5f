-- Says which of some batches are in the stream.
-- KEYS    stream
-- ARGV    for each batch: the id of its entry, the batch
-- Returns for each batch 1 or 0
local present = {}
for i = 1, #ARGV, 2 do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  -- After FLUSHALL, another batch may get the same entry id within the same millisecond.
  present[(i + 1) / 2] = entry and entry[2][2] == ARGV[i + 1] and 1 or 0
end
return present
