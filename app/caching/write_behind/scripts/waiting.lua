-- Reports what is pending in a stream.
--
--   the oldest entry · what is counted as pending · what came lately · the consumers of the group · the records' bytes
--
-- KEYS    stream, backlog, bytes, keyed
-- ARGV    group, the time from which entries are young, in ms since the epoch; '-': all are, '+': none are
-- Returns {amount, bytes, id of the oldest entry or nil, young amount, names of the consumers, number of
--         entries, bytes of the records of idempotency keys of the last 24 hours}
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
-- Without entries, the counters are left over from entries removed by hand. An invalid counter is 0: the next batch
-- counts anew.
local function number(text) return text and string.find(text, '^%d+$') and tonumber(text) < 2 ^ 53 and text or '0' end
local amount, bytes = unpack(redis.call('MGET', KEYS[2], KEYS[3]))
amount, bytes = oldest and number(amount) or '0', oldest and number(bytes) or '0'
local young, names = amount, {}
if ARGV[2] ~= '-' then
  local sum = 0
  for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[2], '+')) do sum = sum + (tonumber(entry[2][6]) or 0) end
  young = string.format('%.0f', sum)
end
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if not consumers.err then -- Otherwise nobody has begun to read.
  for i, fields in ipairs(consumers) do names[i] = fields[2] end
end
local hour, kept, records = math.floor(redis.call('TIME')[1] / 3600), redis.pcall('HGETALL', KEYS[4]), 0
for i = 1, #kept, 2 do -- A key of the wrong type has no fields.
  if math.abs(hour - number(kept[i])) <= 24 then records = records + number(kept[i + 1]) end
end
return {amount, bytes, oldest and oldest[1] or false, young, names, redis.call('XLEN', KEYS[1]), string.format('%.0f', records)}
