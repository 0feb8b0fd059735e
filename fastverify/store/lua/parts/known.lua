-- include: text
-- Since when this shard has been at this primary, as far as the shard itself has been told (ms). After a failover, or when the store has
-- been emptied, there may be followers that have not reported here and still serve by what they were told elsewhere.
local function known_since(tag, now)
  local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  local known = redis.call('HGET', tag .. ':gw', 'primary') or ''
  local its, since = string.match(known, '^(%x+) (%d+)$')
  if its ~= replid then
    since = whole(now)
    redis.call('HSET', tag .. ':gw', 'primary', replid .. ' ' .. since)
  end
  return tonumber(since)
end
