-- Forgets what is older than a committed version, and voids the load under way: it may have read the old row.
-- KEYS    value, lease, floor (for each key)
-- ARGV    floor's time to live in ms, then for each key: version
-- Returns how many of the keys this invalidation was new for
local new = 0
for i = 0, #KEYS / 3 - 1 do
  local value, lease, floor = unpack(KEYS, 3 * i + 1, 3 * i + 3)
  local version, known = tonumber(ARGV[i + 2]), tonumber(redis.call('GET', floor) or 0)
  -- Only the very same version is a repetition. A lower one may be a row inserted after a DELETE that drew its version
  -- first (a sequence does not follow the order of commits), and "there is no row" must not survive it.
  if version ~= known then
    local kept = string.match(redis.call('MGET', value)[1] or '', '^%S+ (%d+) ')
    if tonumber(kept or 0) < version then redis.call('DEL', value) end
    redis.call('DEL', lease)
    redis.call('SET', floor, string.format('%.0f', math.max(version, known)), 'PX', ARGV[1])
    new = new + 1
  end
end
return new
