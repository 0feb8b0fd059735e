#!lua flags=no-writes
-- Reads one session. KEYS[1] shard tag. ARGV: handle. Reply: handle, now, then the record's fields and values (none if it is gone).
-- include: time
-- include: record
local tag, handle = KEYS[1], ARGV[1]
local record, now = tag .. ':s:' .. handle, now_ms()
if not alive(tag, record, now) then
  return { handle, now }
end
return { handle, now, unpack(redis.call('HGETALL', record)) }
