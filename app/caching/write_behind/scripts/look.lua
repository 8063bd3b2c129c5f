-- Reads what is pending for keys whose totals are not cached, and the generation in which it was seen.
--
--   more entries than may be read? ─ yes ─► 'behind'
--   the generation, or a new one if there is none
--   each entry that the flusher would count: its batch, and what it adds to each key
--   each key: its total, if it was cached meanwhile
--
-- KEYS    stream, generation, then the total of each key
-- ARGV    most entries, a random generation, the group, what stands before each total, then the keys
-- Returns 'behind' if too many entries are pending, else {generation, id of the last entry, the pending batches,
--         for each key {total or nil, {place of a batch, delta, …}}}
if redis.call('XLEN', KEYS[1]) > tonumber(ARGV[1]) then return 'behind' end
-- Without a group, later deliveries would be unknown. Nearly always it exists already; see begin.lua.
local created = not redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[3], '0', 'MKSTREAM').err
local generation = redis.call('MGET', KEYS[2])[1] -- MGET, not GET: a key of another type is nil, not an error.
if created or not generation then
  generation = ARGV[2]
  redis.call('SET', KEYS[2], generation)
end
local last, batches, waits, seen = '0-0', {}, {}, {}
for key = 5, #ARGV do waits[key] = {} end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  last = entry[1]
  local known, deltas = pcall(cjson.decode, entry[2][4] or '')
  local batch = entry[2][2]
  -- Entries that the flusher will not count are not counted here: the batch must be a ULID of a year up to 9999, and a
  -- delta a whole number above 0. A batch that is in two entries counts once.
  local ulid = #batch == 26 and string.match(batch, '^[%dA-HJKMNP-TV-Z]+$') and string.sub(batch, 1, 10) <= '76EZ91ZPZZ'
  if known and type(deltas) == 'table' and ulid and not seen[batch] then
    batches[#batches + 1], seen[batch] = batch, true
    for key = 5, #ARGV do
      local delta = deltas[ARGV[key]]
      if type(delta) == 'number' and delta > 0 and delta == math.floor(delta) then
        table.insert(waits[key], #batches)
        table.insert(waits[key], delta)
      end
    end
  end
end
local answers, tag = {}, ARGV[4]
for key = 5, #ARGV do
  -- An invalid total is no error, either: it must not fail the other keys.
  local total = redis.call('MGET', KEYS[key - 2])[1] or ''
  total = string.sub(total, 1, #tag) == tag and string.match(total, '^%d+$', #tag + 1)
  answers[key - 4] = {total and tonumber(total) < 2 ^ 53 and total or false, waits[key]}
end
return {generation, last, batches, answers}
