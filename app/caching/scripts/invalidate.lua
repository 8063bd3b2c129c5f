-- Forgets what is not of a committed version, and voids the load under way: it may have read the old row.
-- KEYS    value, lease, floor (for each key)
-- ARGV    floor's time to live in ms, life of Redis, then for each key: version
-- Returns how many of the keys this invalidation was new for
local new = 0
for i = 0, #KEYS / 3 - 1 do
  local value, lease, floor = unpack(KEYS, 3 * i + 1, 3 * i + 3)
  local kept, known = unpack(redis.call('MGET', value, floor))
  -- A floor of another life is of versions that the database may give out again.
  local version, known = tonumber(ARGV[i + 3]), tonumber(string.match(known or '', '^' .. ARGV[2] .. ' (%d+)$') or 0)
  -- Only the very same version is a repetition, and only a value of the very same version is kept. A sequence does not
  -- follow the order of commits over a DELETE and an INSERT of one key: the row that was inserted last may have drawn the
  -- lowest version, and neither "there is no row" nor a row of before the DELETE must survive it.
  if version ~= known then
    if tonumber(string.match(kept or '', '^%S+ (%d+) ') or 0) ~= version then redis.call('DEL', value) end
    redis.call('DEL', lease)
    redis.call('SET', floor, string.format('%s %.0f', ARGV[2], math.max(version, known)), 'PX', ARGV[1])
    new = new + 1
  end
end
return new
