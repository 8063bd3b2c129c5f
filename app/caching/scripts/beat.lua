-- Reads the record of a Redis. If the record is of our epoch, it leaves a beat there. If our previous beat is gone,
-- Redis went back, and the record becomes void at once: no other instance may believe it meanwhile.
-- KEYS    record
-- ARGV    our epoch or nothing, the name of our beat, a new beat, the database position that we saw last, the telling
--         that we know, what our beat may be under it, the tellings before it
-- Returns {seconds, microseconds, whether the beat was left, whether Redis went back, then of the record (nil: missing)
--          epoch, deployment, history, position, claim, for which history, telling, our previous beat}
local fields = {'epoch', 'deployment', 'history', 'position', 'claim', 'claims_for', 'telling', ARGV[2]}
local time, record = redis.call('TIME'), redis.call('HMGET', KEYS[1], unpack(fields))
local answer = {time[1], time[2], 0, 0, unpack(record, 1, #fields)}
if record[1] ~= ARGV[1] then return answer end
-- An invalid position counts as 0: otherwise it would keep every instance from trusting Redis.
local told = tonumber(record[4] or 0)
local position = string.format('%.0f', math.max(told and told < 2 ^ 63 and told or 0, tonumber(ARGV[4])))
local set = redis.pcall('HSET', KEYS[1], ARGV[2], ARGV[3], 'position', position)
-- A Redis whose memory or disk is full accepts no beat. That is no reason to distrust what it has.
if type(set) ~= 'table' then answer[3] = 1 elseif string.find(set.err, 'READONLY') then return set end
local same, left = record[7] == ARGV[5], string.find(ARGV[6], record[8] or '-', 1, true)
if same and not left or not same and string.find(ARGV[7], record[7] or '-', 1, true) then
  answer[4] = 1
  redis.pcall('HSET', KEYS[1], 'epoch', 'void ' .. ARGV[1])
end
return answer
