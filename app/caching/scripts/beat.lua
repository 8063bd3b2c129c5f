-- Reads the record of a Redis: of which epoch it was told. While that is ours, it leaves a beat there; if that of before is
-- gone, Redis went back, and the record is void at once: nobody else may believe it meanwhile.
-- KEYS    record
-- ARGV    our epoch or nothing, the name of our beat, a new beat, how far the database had come when we looked last, the
--         telling that we know, what our beat may be in it, the tellings that were before it
-- Returns {seconds, microseconds, whether the beat was left, whether Redis went back, then of the record, each nil where it
--          is not there: epoch, deployment, history, position, claim, for which history, telling, our beat of before}
local fields = {'epoch', 'deployment', 'history', 'position', 'claim', 'claims_for', 'telling', ARGV[2]}
local time, record = redis.call('TIME'), redis.call('HMGET', KEYS[1], unpack(fields))
local answer = {time[1], time[2], 0, 0, unpack(record, 1, #fields)}
if record[1] ~= ARGV[1] then return answer end
-- What is no position is one that nobody knows: the breaker of every instance would stay open for it.
local told = tonumber(record[4] or 0)
local position = string.format('%.0f', math.max(told and told < 2 ^ 63 and told or 0, tonumber(ARGV[4])))
local set = redis.pcall('HSET', KEYS[1], ARGV[2], ARGV[3], 'position', position)
-- A Redis whose memory or disk is full takes no beat: that is no reason not to believe what it has.
if type(set) ~= 'table' then answer[3] = 1 elseif string.find(set.err, 'READONLY') then return set end
local same, left = record[7] == ARGV[5], string.find(ARGV[6], record[8] or '-', 1, true)
if same and not left or not same and string.find(ARGV[7], record[7] or '-', 1, true) then
  answer[4] = 1
  redis.pcall('HSET', KEYS[1], 'epoch', 'void ' .. ARGV[1])
end
return answer
