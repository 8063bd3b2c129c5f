-- Removes consumers that hold nothing, in one step: removing one that holds entries would lose them.
-- KEYS    stream
-- ARGV    group, how long a consumer must have been idle in ms, a consumer that may go at once
-- Returns how many were removed
local consumers, removed = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1]), 0
if consumers.err then return 0 end -- There is no group, so there are no consumers.
for _, fields in ipairs(consumers) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if consumer.pending == 0 and (consumer.idle > tonumber(ARGV[2]) or consumer.name == ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    removed = removed + 1
  end
end
return removed
