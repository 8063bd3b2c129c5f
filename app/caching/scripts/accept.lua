-- Takes views on: they are counted once from here on, whatever dies.
-- KEYS    stream, backlog, bytes, guard, epoch, then the total of each page, then the key of each item that has one
-- ARGV    batch, guard ms, key ms, total ms, most entries, most bytes, a random epoch or nothing, number of pages, the
--         pages, then for each item: page (from 1), delta, key (from 1; 0: none)
-- Returns 'full', or the page whose total would grow too large, with nothing changed; else {'<entry> <views>' ('- 0':
--         nothing was new), the total of each page (nil: not cached)}
local again, pages = ARGV[7] ~= '', tonumber(ARGV[8])
local taken = redis.call('GET', KEYS[4])
local entry = again and string.match(taken or '', '^%d+%-%d+')
-- Redis has lost something since the first time: perhaps the entry, and not the guard. The ledger knows batches.
if entry and #redis.call('XRANGE', KEYS[1], entry, entry) == 0 then taken = nil end
if not taken then
  if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[5]) then return 'full' end
  if tonumber(redis.call('GET', KEYS[3]) or 0) >= tonumber(ARGV[6]) then return 'full' end
  local sums, views, fresh = {}, 0, {}
  for i = 9 + pages, #ARGV, 3 do
    local page, delta, key = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), KEYS[5 + pages + tonumber(ARGV[i + 2])]
    if ARGV[i + 2] == '0' then key = nil end
    if not (key and (fresh[key] or redis.call('GET', key))) then
      sums[page], views = (sums[page] or 0) + delta, views + delta
      if key then fresh[key] = true end
    end
  end
  local deltas = {}
  for page, sum in pairs(sums) do
    if sum + tonumber(redis.call('GET', KEYS[5 + page]) or 0) >= 2 ^ 53 then return page end
    deltas[ARGV[8 + page]] = sum
  end
  for key in pairs(fresh) do redis.call('SET', key, 1, 'PX', ARGV[3]) end
  taken = '- 0'
  if views > 0 then
    local number, json = string.format('%.0f', views), cjson.encode(deltas)
    taken = redis.call('XADD', KEYS[1], '*', 'batch', ARGV[1], 'deltas', json, 'views', number) .. ' ' .. number
    redis.call('INCRBY', KEYS[2], number)
    redis.call('INCRBY', KEYS[3], #json)
  end
  redis.call('SET', KEYS[4], taken, 'PX', ARGV[2])
  -- A repetition after a loss: before it the batch may have been counted in the database, and forgotten here. Then a
  -- total that was built since has it already. The ledger knows, so build it anew.
  if again then redis.call('SET', KEYS[5], ARGV[7]) end
  for page, sum in pairs(sums) do
    local total = KEYS[5 + page]
    if again then
      redis.call('DEL', total)
    elseif redis.call('EXISTS', total) == 1 then
      redis.call('INCRBY', total, string.format('%.0f', sum))
      redis.call('PEXPIRE', total, ARGV[4])
    end
  end
end
local totals = {}
for page = 1, pages do totals[page] = redis.call('GET', KEYS[5 + page]) end
return {taken, totals}
