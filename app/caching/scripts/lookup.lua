-- Returns the value of each key, or says who may load it. A fresh value of our schema is an entry. Anything else is a
-- miss, and the first reader to miss gets the lease.
-- KEYS    value, lease (for each key)
-- ARGV    token, schema, lease in ms
-- Returns the time in ms, then for each key {'entry', value} | {'lease' or 'wait', holder's token, old value or nil}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {now}
for i = 1, #KEYS, 2 do
  local value = redis.call('MGET', KEYS[i])[1] -- MGET, not GET: a key of another type is a miss, not an error.
  local schema, version, stored, fresh, cost = string.match(value or '', '^(%S+) (%d+) (%d+) (%d+) (%d+) ')
  local readable = schema == ARGV[2] and math.max(#version, #stored, #fresh, #cost) < 17
  local holder = redis.call('MGET', KEYS[i + 1])[1]
  if readable and tonumber(stored) + tonumber(fresh) > now then
    answers[#answers + 1] = {'entry', value}
  elseif holder then
    -- A lease without an expiry was left by a person or a tool. Without this, nobody would ever load its key.
    if redis.call('PTTL', KEYS[i + 1]) == -1 then redis.call('PEXPIRE', KEYS[i + 1], ARGV[3]) end
    answers[#answers + 1] = {'wait', holder, value}
  else
    redis.call('SET', KEYS[i + 1], ARGV[1], 'PX', ARGV[3])
    answers[#answers + 1] = {'lease', ARGV[1], value}
  end
end
return answers
