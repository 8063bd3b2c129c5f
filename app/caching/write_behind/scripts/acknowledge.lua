-- Forgets entries that the database has: from here on, only its counters hold them.
--
--   each entry: is it there, with this batch? ─ yes ─► XACK, XDEL
--   set a new generation: a total that is being built starts again
--   was an entry already gone? ─ yes ─► delete the totals of all keys: they are built anew
--   subtract the removed entries from the backlog
--
-- KEYS    stream, generation, backlog, bytes, then the total of each key of the entries
-- ARGV    group, a random generation, then for each entry: id, batch (or nothing if it has none), amount, bytes
-- Returns the amount of the entries that were there
local entries, there, amount, bytes = (#ARGV - 2) / 4, 0, 0, 0
for i = 3, #ARGV, 4 do
  local id, batch = ARGV[i], ARGV[i + 1]
  local found = redis.call('XRANGE', KEYS[1], id, id)[1]
  local ours = batch == ''
  for place = 1, found and #found[2] or 0, 2 do
    ours = ours or found[2][place] == 'batch' and found[2][place + 1] == batch
  end
  -- After FLUSHALL, another entry may have got this id within the same ms. That entry is not counted yet.
  if ours or not found then
    redis.call('XACK', KEYS[1], ARGV[1], id)
    if redis.call('XDEL', KEYS[1], id) == 1 then
      there, amount, bytes = there + 1, amount + tonumber(ARGV[i + 2]), bytes + tonumber(ARGV[i + 3])
    end
  end
end
redis.call('SET', KEYS[2], ARGV[2])
-- Missing entries were removed by something else: the totals may have been built anew without them.
if there < entries then
  for i = 5, #KEYS do redis.call('DEL', KEYS[i]) end
end
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[3], KEYS[4])
elseif there > 0 then
  local backlog = redis.pcall('DECRBY', KEYS[3], string.format('%.0f', amount))
  local left = redis.pcall('DECRBY', KEYS[4], string.format('%.0f', bytes))
  -- A counter was overwritten with something else: the next accepted batch counts anew.
  if type(backlog) == 'table' or type(left) == 'table' then redis.call('SET', KEYS[3], '-') end
end
return string.format('%.0f', amount)
