#!lua flags=allow-oom
-- Whether a session lives, vouched for by a primary that can write (the write is the fence: an isolated old primary must not vouch).
-- KEYS[1] shard tag. ARGV: handle. Reply: handle, 0 if it does not; else 1, now, the newest mark that concerns it (ms, or 0), and the
--       record's fields and values without its data.
-- Repeatable.
-- include: time
-- include: record
local tag, handle, now = KEYS[1], ARGV[1], now_ms()
local record = tag .. ':s:' .. handle
redis.call('HSET', tag .. ':gw', 'strict', now)
if not alive(tag, record, now) then
  return { handle, 0 }
end
local reply = { handle, 1, now, newest_mark(tag, redis.call('HGET', record, 'tenant')) }
local fields = redis.call('HGETALL', record)
for i = 1, #fields, 2 do
  if fields[i] ~= 'data' then
    reply[#reply + 1] = fields[i]
    reply[#reply + 1] = fields[i + 1]
  end
end
return reply
