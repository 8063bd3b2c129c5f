-- Takes views on: they are counted once from here on, whatever dies.
-- KEYS    stream, backlog, bytes, guard, epoch, then the total of each page, then the key of each keyed addition
-- ARGV    batch, guard ms, key ms, total ms, most entries, most bytes, a random epoch or nothing, and in JSON: the pages,
--         the views without a key by page, the keyed additions [page (from 1), views, key (from 1)]
-- Returns 'full', or the page whose total would grow too large, with nothing changed; else {'<entry> <views>' ('- 0':
--         nothing was new), the total of each page (nil: not cached)}
local again, pages = ARGV[7] ~= '', cjson.decode(ARGV[8])
local taken = redis.call('GET', KEYS[4])
local entry = again and string.match(taken or '', '^%d+%-%d+')
-- Redis has lost something since the first time: perhaps the entry, and not the guard. The ledger knows batches.
if entry and #redis.call('XRANGE', KEYS[1], entry, entry) == 0 then taken = nil end
-- Read and written with one command for all and one each: most of what a batch costs in Redis is in these.
local totals = redis.call('MGET', unpack(KEYS, 6, 5 + #pages))
if not taken then
  local length = redis.call('XLEN', KEYS[1])
  if length >= tonumber(ARGV[5]) then return 'full' end
  if length > 0 and tonumber(redis.call('GET', KEYS[3]) or 0) >= tonumber(ARGV[6]) then return 'full' end
  local json, sums, views, fresh = ARGV[9], cjson.decode(ARGV[9]), 0, {}
  for _, sum in pairs(sums) do views = views + sum end
  for _, item in ipairs(cjson.decode(ARGV[10])) do
    local page, delta, key = pages[item[1]], item[2], KEYS[5 + #pages + item[3]]
    local known = redis.call('GET', key)
    -- Under its own key a batch may be taken on again.
    if not (fresh[key] or known and not (again and known == ARGV[1])) then
      sums[page], views, json = (sums[page] or 0) + delta, views + delta, nil
      fresh[key] = true
    end
  end
  local deltas = {}
  for place, page in ipairs(pages) do
    local sum = sums[page]
    if sum then
      if sum + tonumber(totals[place] or 0) >= 2 ^ 53 then return place end
      -- cjson alone would write 14 digits.
      if not json then deltas[#deltas + 1] = cjson.encode(page) .. ':' .. string.format('%.0f', sum) end
    end
  end
  for key in pairs(fresh) do redis.call('SET', key, ARGV[1], 'PX', ARGV[3]) end
  taken = '- 0'
  if views > 0 then
    local number = string.format('%.0f', views)
    json = json or '{' .. table.concat(deltas, ',') .. '}'
    taken = redis.call('XADD', KEYS[1], '*', 'batch', ARGV[1], 'deltas', json, 'views', number) .. ' ' .. number
    -- Somebody has emptied the stream by hand: what was counted of it is gone, too. (Not before the first command that
    -- takes memory: after any other write a Redis whose memory is full would take that one, too.)
    if length == 0 then redis.call('DEL', KEYS[2], KEYS[3]) end
    redis.call('INCRBY', KEYS[2], number)
    redis.call('INCRBY', KEYS[3], #json)
  end
  redis.call('SET', KEYS[4], taken, 'PX', ARGV[2])
  -- A repetition after a loss: before it the batch may have been counted in the database, and forgotten here. Then a
  -- total that was built since has it already. The ledger knows, so build it anew.
  if again then redis.call('SET', KEYS[5], ARGV[7]) end
  for place, page in ipairs(pages) do
    local total, sum = KEYS[5 + place], sums[page]
    if sum and again then
      redis.call('DEL', total)
      totals[place] = false
    elseif sum and totals[place] then
      totals[place] = string.format('%.0f', totals[place] + sum)
      redis.call('SET', total, totals[place], 'PX', ARGV[4])
    end
  end
end
return {taken, totals}
