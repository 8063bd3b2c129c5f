-- Releases leases that are still ours: the load failed, and the next reader must not wait for it.
-- KEYS    lease (for each key)
-- ARGV    token
-- Returns how many leases were ours
local released = 0
for _, lease in ipairs(KEYS) do
  if redis.call('MGET', lease)[1] == ARGV[1] then released = released + redis.call('DEL', lease) end
end
return released
