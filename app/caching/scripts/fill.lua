-- Caches loaded rows, each if the lease of its load still holds and no newer version is known.
--
--   each key: is the lease this token? ─ no ─► 'lost'
--    │ yes: delete the lease
--   is the floor of this life above the version? ─ yes ─► 'below'
--    │ no
--   SET header and payload ─► 'stored'
--
-- KEYS    value, lease, floor (for each key)
-- ARGV    schema, life of Redis, then for each key: token, version (0: there is no row), load cost, fresh for, kept for
--         (all in ms), payload
-- Returns for each key 'stored' | 'below' (the floor is higher, or the name is a stream's) | 'lost' (the lease is gone,
-- or has another token)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for i = 0, #KEYS / 3 - 1 do
  local value, lease, floor = unpack(KEYS, 3 * i + 1, 3 * i + 3)
  local token, version, cost, fresh, keep, payload = unpack(ARGV, 6 * i + 3, 6 * i + 8)
  local holder, known = unpack(redis.call('MGET', lease, floor))
  if holder ~= token then
    answers[i + 1] = 'lost'
  else
    redis.call('DEL', lease)
    known = string.match(known or '', '^' .. ARGV[2] .. ' (%d+)$')
    if version ~= '0' and tonumber(version) < tonumber(known or 0) then
      answers[i + 1] = 'below'
    elseif redis.call('TYPE', value).ok == 'stream' then
      answers[i + 1] = 'below' -- Counters of the same name: what is pending in them may not be overwritten.
    else
      local header = string.format('%s %s %.0f %s %s ', ARGV[1], version, now, fresh, cost)
      redis.call('SET', value, header .. payload, 'PX', keep)
      answers[i + 1] = 'stored'
    end
  end
end
return answers
