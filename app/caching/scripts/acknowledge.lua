-- Forgets entries that the database has: from here on its counters alone hold them.
-- KEYS    stream, epoch, backlog, bytes, then the total of each page of the entries
-- ARGV    group, a random epoch, then for each entry: id, views, bytes
-- Returns how many views of the entries were there
local entries, there, views, bytes = (#ARGV - 2) / 3, 0, 0, 0
for i = 3, #ARGV, 3 do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[i])
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
    there, views, bytes = there + 1, views + tonumber(ARGV[i + 1]), bytes + tonumber(ARGV[i + 2])
  end
end
redis.call('SET', KEYS[2], ARGV[2])
-- Entries that are gone were flushed out under us: the totals may have been built anew without them.
if there < entries then
  for i = 5, #KEYS do redis.call('DEL', KEYS[i]) end
end
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[3], KEYS[4])
elseif there > 0 then
  redis.call('DECRBY', KEYS[3], string.format('%.0f', views))
  redis.call('DECRBY', KEYS[4], string.format('%.0f', bytes))
end
return string.format('%.0f', views)
