-- Removes each value whose version is not the committed one given, and voids its load in flight, which may have read
-- the old row.
-- KEYS    value, lease, floor (for each key)
-- ARGV    floor's time to live in ms, life of Redis, then for each key: version
-- Returns the number of keys for which this invalidation was new
local new = 0
for i = 0, #KEYS / 3 - 1 do
  local value, lease, floor = unpack(KEYS, 3 * i + 1, 3 * i + 3)
  local kept, known = unpack(redis.call('MGET', value, floor))
  -- A floor of another life is ignored: the database may assign its versions again.
  local version, known = tonumber(ARGV[i + 3]), tonumber(string.match(known or '', '^' .. ARGV[2] .. ' (%d+)$') or 0)
  -- Only exactly the same version is a repetition, and only a value of exactly the same version is kept. Across a
  -- DELETE and an INSERT of one key, a sequence does not follow the order of commits: the row inserted last may have
  -- drawn the lowest version, and neither "there is no row" nor a row from before the DELETE may survive.
  if version ~= known then
    if kept and tonumber(string.match(kept, '^%S+ (%d+) ') or 0) ~= version then redis.call('DEL', value) end
    redis.call('DEL', lease)
    redis.call('SET', floor, string.format('%s %.0f', ARGV[2], math.max(version, known)), 'PX', ARGV[1])
    new = new + 1
  end
end
return new
