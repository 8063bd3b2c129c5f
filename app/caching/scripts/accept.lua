-- Takes views on: they are counted once from here on, whatever dies.
-- KEYS    stream, backlog, guard, epoch, then the total of each page, then the key of each item that has one
-- ARGV    batch, guard ms, key ms, total ms, most entries, a random epoch or nothing, number of pages, the pages,
--         then for each item: page (from 1), delta, key (from 1; 0: none)
-- Returns 'full', or the page whose total would grow too large, with nothing changed; else the total of each page (nil:
-- not cached)
local pages = tonumber(ARGV[7])
if not redis.call('GET', KEYS[3]) then
  if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[5]) then return 'full' end
  local sums, views, fresh = {}, 0, {}
  for i = 8 + pages, #ARGV, 3 do
    local page, delta, key = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), KEYS[4 + pages + tonumber(ARGV[i + 2])]
    if ARGV[i + 2] == '0' then key = nil end
    if not (key and (fresh[key] or redis.call('GET', key))) then
      sums[page], views = (sums[page] or 0) + delta, views + delta
      if key then fresh[key] = true end
    end
  end
  local deltas = {}
  for page, sum in pairs(sums) do
    if sum + tonumber(redis.call('GET', KEYS[4 + page]) or 0) >= 2 ^ 53 then return page end
    deltas[ARGV[7 + page]] = sum
  end
  redis.call('SET', KEYS[3], 1, 'PX', ARGV[2])
  for key in pairs(fresh) do redis.call('SET', key, 1, 'PX', ARGV[3]) end
  if views > 0 then
    redis.call('XADD', KEYS[1], '*', 'batch', ARGV[1], 'deltas', cjson.encode(deltas))
    redis.call('INCRBY', KEYS[2], string.format('%.0f', views))
  end
  -- With an epoch, this is a repetition after a restart. Before it the batch may have been taken on and counted in the
  -- database, and forgotten here: then a total that was built since has it already. The ledger knows, so build it anew.
  if ARGV[6] ~= '' then redis.call('SET', KEYS[4], ARGV[6]) end
  for page, sum in pairs(sums) do
    local total = KEYS[4 + page]
    if ARGV[6] ~= '' then
      redis.call('DEL', total)
    elseif redis.call('EXISTS', total) == 1 then
      redis.call('INCRBY', total, string.format('%.0f', sum))
      redis.call('PEXPIRE', total, ARGV[4])
    end
  end
end
local totals = {}
for page = 1, pages do totals[page] = redis.call('GET', KEYS[4 + page]) end
return totals
