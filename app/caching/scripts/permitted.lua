-- Says which commands this login may not run. Each call changes nothing: it reads, or it names what is not there, or its
-- arguments are no use. Whether it is permitted is decided before that.
-- KEYS    a name that is not in use
-- Returns the names of the refused commands
local harmless = 'DEL KEY|DECRBY KEY x|GET KEY|HDEL KEY f|HGET KEY f|HGETALL KEY|HMGET KEY f|HSET KEY f 1 f|INCRBY KEY x|' ..
  'MGET KEY|PEXPIRE KEY 1|PTTL KEY|SET KEY 1 XX|TIME|TYPE KEY|XACK KEY g 0-1|XADD KEY NOMKSTREAM * f 1|' ..
  'XAUTOCLAIM KEY g c 0 0|XCLAIM KEY g c 0 0-1|XDEL KEY 0-1|XGROUP CREATE KEY g 0|XGROUP DELCONSUMER KEY g c|' ..
  'XINFO CONSUMERS KEY g|XLEN KEY|XPENDING KEY g|XRANGE KEY - +|XREADGROUP GROUP g c STREAMS KEY >'
local refused = {}
for line in string.gmatch(harmless, '[^|]+') do
  local call = {}
  for word in string.gmatch(line, '%S+') do call[#call + 1] = word == 'KEY' and KEYS[1] or word end
  local answer = redis.pcall(unpack(call))
  local why = type(answer) == 'table' and answer.err or ''
  -- Redis 6 says the first, Redis 7 the second.
  if string.find(why, "can't run this command", 1, true) or string.find(why, 'no permissions to run', 1, true) then
    refused[#refused + 1] = string.match(line, '^XGROUP %u+') or string.match(line, '^XINFO %u+') or call[1]
  end
end
return refused
