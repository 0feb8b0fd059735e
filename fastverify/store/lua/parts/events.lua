-- include: text
-- The shard's events (docs/events.md): a stream with ids <seq>-0, dense, so that a reader sees when some were trimmed away. Each names the
-- primary that wrote it: after a failover that lost some, others bear their numbers. A new stream begins at the present time in
-- microseconds, which is beyond all that one before it can have come to. Returns the function that writes one; keep: how many are kept; nothing or 0: none is.
local function event_log(tag, keep, now)
  local stream, tail, primary = tag .. ':events', nil, nil
  return function(name, handle, user, tenant, why, ...)
    if not keep or tonumber(keep) == 0 then
      return
    end
    if not tail then
      local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
      tail = last and tonumber(string.match(last[1], '^%d+')) or now * 1000
      primary = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x%x%x%x%x%x%x%x)')
    end
    tail = tail + 1
    redis.call('XADD', stream, 'MAXLEN', '~', keep, whole(tail) .. '-0', 'name', name, 'at', whole(now), 'primary', primary,
      'handle', handle, 'user', user, 'tenant', tenant, 'why', why, ...)
  end
end
