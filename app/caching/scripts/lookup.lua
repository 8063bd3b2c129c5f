-- Answers what stands under each key, or says who may load it. A fresh value of our schema is an entry; anything else is
-- a miss, and the first to miss gets the lease.
-- KEYS    value, lease (for each key)
-- ARGV    token, schema, lease in ms
-- Returns the time in ms, then for each key {'entry', value} | {'lease' or 'wait', token of the holder, old value or nil}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {now}
for i = 1, #KEYS, 2 do
  local value = redis.call('MGET', KEYS[i])[1] -- MGET, and not GET: a key of another type is a miss and not an error.
  local schema, fresh = string.match(value or '', '^(%S+) %d+ %d+ (%d+) %d+ ')
  if schema == ARGV[2] and tonumber(fresh) > now then
    answers[#answers + 1] = {'entry', value}
  elseif redis.call('SET', KEYS[i + 1], ARGV[1], 'NX', 'PX', ARGV[3]) then
    answers[#answers + 1] = {'lease', ARGV[1], value}
  else
    answers[#answers + 1] = {'wait', redis.call('GET', KEYS[i + 1]), value}
  end
end
return answers
