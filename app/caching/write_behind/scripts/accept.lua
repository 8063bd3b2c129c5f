-- Accepts a batch: from here on, its additions count once, whichever process dies.
--
--   1  the batch is known by its guard? ─ yes ─────────────────────────► answer the totals
--       │ no
--   2  the stream is at its cap? ─ yes ────────────────────────────────► 'full'
--       │ no
--   3  each addition with an idempotency key: add it if no record has it
--       │
--   4  a record cannot be read, or there is no room for more? ─ yes ───► {'refused', …}
--       │ no
--   5  a total would be too large? ─ yes ──────────────────────────────► the place of its key
--       │ no
--   6  tidy up, with each command that 8 and 9 need: whatever Redis refuses, it refuses here
--   7  write the pending record: XADD, and count it in backlog and bytes
--   8  write records and guard
--   9  add to the cached totals ───────────────────────────────────────► {entry, totals}
--
-- Before XADD, nothing is written that counts, and after it, nothing can fail: not even for a login that may run XADD,
-- and not SET. The batch would be accepted, and answered as refused.
--
-- KEYS    stream, backlog, bytes, guard, generation, keyed, then the total of each key, then for the additions with an
--         idempotency key: the record of each key and idempotency key, and the record of each call
-- ARGV    batch, guard ms, record ms, total ms, most entries, most bytes, a random generation or nothing, most bytes of
--         records, the first batch that still counts, most batches in the record of a call, what stands before each
--         total; in JSON the keys, the amounts without an idempotency key by key, the additions with one [key (from
--         1), amount, record (from 1), call (from 1), whether it belongs in the call's record (1)]; and for each key
--         eight bytes that stand for it
-- Returns 'full', {'refused', an addition, why, …}, or the place of the key whose total would grow too large, each with
--         nothing changed; else {'<entry> <amount>' ('- 0': nothing was new), the total of each key (nil: not cached)}
--         Why: 'record' or 'call' (it cannot be read), 'worn' (the call's record is full), 'room' (no room for records)
local again, tag, keys = ARGV[7] ~= '', ARGV[11], cjson.decode(ARGV[12])
-- Returns nil for a key of the wrong type: the other additions of this batch must not fail because of it.
local function read(command, name)
  local answer = redis.pcall(command, name)
  if not answer or not answer.err then return answer end
  if not string.find(answer.err, 'WRONGTYPE') then return redis.call(command, name) end
end
local function number(text)
  local value = text and string.find(text, '^%d+$') and tonumber(text)
  return value and value < 2 ^ 53 and value
end
local function is_batch(text)
  return #text == 26 and string.find(text, '^%w+$')
end
-- 1
local accepted = redis.call('GET', KEYS[4])
local entry = again and string.match(accepted or '', '^%d+%-%d+')
-- The entry is gone: it was flushed meanwhile, or Redis lost it but not the guard. The ledger counts a batch once.
if entry and #redis.call('XRANGE', KEYS[1], entry, entry) == 0 then accepted = nil end
-- Totals are read with one command for all, and written with one for each: that is most of a batch's cost in Redis.
local totals, rotten = redis.call('MGET', unpack(KEYS, 7, 6 + #keys)), {}
for place, total in pairs(totals) do
  -- An invalid total counts as not cached: it must not fail the additions to other keys. So does one of another life.
  if total then
    local of_life = string.sub(total, 1, #tag) == tag
    totals[place] = of_life and string.sub(total, #tag + 1)
    if not number(totals[place]) then
      rotten[#rotten + 1], totals[place] = KEYS[6 + place], false
    end
  end
end
if not accepted then
  -- 2
  local length = redis.call('XLEN', KEYS[1])
  if length >= tonumber(ARGV[5]) then return 'full' end
  if length > 0 and (number(redis.call('MGET', KEYS[3])[1]) or 0) >= tonumber(ARGV[6]) then return 'full' end
  -- 3
  local json, sums, amount, items = ARGV[13], cjson.decode(ARGV[13]), 0, cjson.decode(ARGV[14])
  for _, sum in pairs(sums) do amount = amount + sum end
  local records, calls, fresh, needs, words, size = 6 + #keys, 6 + #keys, {}, {}, {}, 0
  for _, item in ipairs(items) do calls = math.max(calls, records + item[3]) end
  local known, worn, unreadable, old, refused = {}, {}, {}, {}, {'refused'}
  for place, item in ipairs(items) do
    local record, call = KEYS[records + item[3]], KEYS[calls + item[4]]
    if not known[call] then
      known[call] = {} -- Maps the eight bytes of a key to the batch that has it.
      local fields = read('HGETALL', call)
      unreadable[call], fields = not fields, fields or {}
      local batches = 0
      for i = 1, #fields, 2 do
        if not is_batch(fields[i]) or fields[i] < ARGV[9] then old[#old + 1] = {call, fields[i]} else
          batches = batches + 1
          for at = 1, #fields[i + 1], 8 do known[call][string.sub(fields[i + 1], at, at + 7)] = fields[i] end
        end
      end
      worn[call] = batches >= tonumber(ARGV[10]) -- Reading a larger one would block all other clients of Redis.
    end
    local word = string.sub(ARGV[15], item[1] * 8 - 7, item[1] * 8)
    local one, many = read('GET', record), known[call][word]
    if one and not is_batch(one) then one = nil end
    -- A batch's own record does not keep it from being accepted again.
    if not (fresh[record] or one and not (again and one == ARGV[1]) or many and not (again and many == ARGV[1])) then
      local key = keys[item[1]]
      sums[key], amount, json, fresh[record] = (sums[key] or 0) + item[2], amount + item[2], nil, true
      needs[#needs + 1], unreadable[record] = place, one == nil
      local why = one == nil and 'record' or unreadable[call] and 'call' or item[5] == 1 and worn[call] and 'worn'
      if why then refused[#refused + 1], refused[#refused + 2] = place, why end
      if item[5] == 1 then
        size = size + (words[call] and 8 or 250 + #call)
        words[call] = (words[call] or '') .. word
      else
        size = size + 200 + #record
        words[record] = false
      end
    end
  end
  -- 4: the bytes of records by hour, of those hours whose records still exist.
  local hour, kept, whole, now = 0, {}, size, size
  if size > 0 then hour, kept = math.floor(redis.call('TIME')[1] / 3600), read('HGETALL', KEYS[6]) end
  unreadable[KEYS[6]], kept = not kept, kept or {}
  for i = 1, #kept, 2 do
    local came, bytes = number(kept[i]), number(kept[i + 1])
    if came and bytes and math.abs(hour - came) <= ARGV[3] / 3600000 then
      whole, now = whole + bytes, now + (came == hour and bytes or 0)
    else
      old[#old + 1] = {KEYS[6], kept[i]}
    end
  end
  if #refused == 1 and whole > tonumber(ARGV[8]) then
    for _, place in ipairs(needs) do refused[#refused + 1], refused[#refused + 2] = place, 'room' end
  end
  -- A batch that was accepted once is accepted again, whatever happened to its records.
  if #refused > 1 and not again then return refused end
  -- 5
  local deltas = {}
  for place, key in ipairs(keys) do
    local sum = sums[key]
    if sum then
      if sum + tonumber(totals[place] or 0) >= 2 ^ 53 then return place end
      -- cjson alone would write only 14 digits.
      if not json then deltas[#deltas + 1] = cjson.encode(key) .. ':' .. string.format('%.0f', sum) end
    end
  end
  -- 6: a Redis whose memory is full refuses SET, and would accept whatever follows another write.
  if again then
    -- A repetition after a loss: the batch may have been counted in the database before, and forgotten here. Then a
    -- total that was built since includes it already. Only the ledger knows, so the total is built anew.
    redis.call('SET', KEYS[5], ARGV[7])
    redis.call('DEL', KEYS[4])
  else
    redis.call('SET', KEYS[4], '', 'XX') -- There is no guard, so this changes nothing.
  end
  for _, total in ipairs(rotten) do redis.call('DEL', total) end
  if size > 0 then
    if unreadable[KEYS[6]] then redis.call('DEL', KEYS[6]) end
    for _, field in ipairs(old) do redis.call('HDEL', unpack(field)) end
    redis.call('HSET', KEYS[6], hour, string.format('%.0f', now - size))
    redis.call('PEXPIRE', KEYS[6], 2 * ARGV[3])
  end
  -- 7
  accepted = '- 0'
  if amount > 0 then
    local count = string.format('%.0f', amount)
    json = json or '{' .. table.concat(deltas, ',') .. '}'
    -- If someone emptied the stream by hand, its counters are outdated.
    if length == 0 then redis.call('DEL', KEYS[2], KEYS[3]) end
    -- The last field keeps its first name because it is part of the format.
    accepted = redis.call('XADD', KEYS[1], '*', 'batch', ARGV[1], 'deltas', json, 'views', count) .. ' ' .. count
    local backlog, bytes = redis.pcall('INCRBY', KEYS[2], count), redis.pcall('INCRBY', KEYS[3], #json)
    if type(backlog) == 'table' or type(bytes) == 'table' then
      -- A counter was overwritten with something else: count anew.
      backlog, bytes = 0, 0
      local entries = redis.pcall('XRANGE', KEYS[1], '-', '+')
      for _, waits in ipairs(entries.err and {} or entries) do
        backlog, bytes = backlog + (tonumber(waits[2][6]) or 0), bytes + #(waits[2][4] or '')
      end
      redis.call('SET', KEYS[2], string.format('%.0f', backlog))
      redis.call('SET', KEYS[3], bytes)
    end
  end
  -- 8
  for record, some in pairs(words) do
    if unreadable[record] then
      -- Leave what is there instead, for someone to investigate.
    elseif some then
      redis.call('HSET', record, ARGV[1], some)
      redis.call('PEXPIRE', record, ARGV[3])
    else
      redis.call('SET', record, ARGV[1], 'PX', ARGV[3])
    end
  end
  if size > 0 then redis.call('HSET', KEYS[6], hour, string.format('%.0f', now)) end
  redis.call('SET', KEYS[4], accepted, 'PX', ARGV[2])
  -- 9
  for place, key in ipairs(keys) do
    local total, sum = KEYS[6 + place], sums[key]
    if sum and again then
      redis.call('DEL', total)
      totals[place] = false
    elseif sum and totals[place] then
      totals[place] = string.format('%.0f', totals[place] + sum)
      redis.call('SET', total, tag .. totals[place], 'PX', ARGV[4])
    end
  end
end
return {accepted, totals}
