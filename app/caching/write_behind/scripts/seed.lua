-- Caches the total of a key: what the database had, what was pending then, and what came since.
--
--   was it cached meanwhile? ─ yes ─► that total
--   another generation, or was a newer entry delivered to a flusher? ─ yes ─► 'again'
--   the base, plus the entries after the last one seen ─► the total
--
-- KEYS    stream, generation, total
-- ARGV    group, generation, id of the last entry seen, base, key, total ms, ms of a total of 0, what
--         stands before each total
-- Returns the total, or 'again' if what was seen is not enough to know it
local total, tag = redis.call('MGET', KEYS[3])[1] or '', ARGV[8]
total = string.sub(total, 1, #tag) == tag and string.match(total, '^%d+$', #tag + 1)
if total and tonumber(total) < 2 ^ 53 then return total end
-- An acknowledgement came in between: what was pending then may have been counted by the database, or not.
if redis.call('MGET', KEYS[2])[1] ~= ARGV[2] then return 'again' end
-- A newer entry is already on its way: the database may have counted it before it was queried.
local delivered = redis.pcall('XPENDING', KEYS[1], ARGV[1], '(' .. ARGV[3], '+', 1000)
if delivered.err then return 'again' end
for _, one in ipairs(delivered) do
  -- An entry that was trimmed by hand stays unacknowledged forever, but is no entry any more.
  if #redis.call('XRANGE', KEYS[1], one[1], one[1]) > 0 then return 'again' end
end
total = tonumber(ARGV[4])
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[3], '+')) do
  local known, deltas = pcall(cjson.decode, entry[2][4] or '')
  local delta = known and type(deltas) == 'table' and deltas[ARGV[5]]
  if type(delta) == 'number' then total = total + delta end
end
local text = string.format('%.0f', total)
redis.call('SET', KEYS[3], tag .. text, 'PX', total > 0 and ARGV[6] or ARGV[7])
return text
