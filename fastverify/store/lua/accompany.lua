#!lua
-- The session that acts as another user's is in use: its own idle expiry slides, as if it had been refreshed. Vouched for by a primary
-- that can write, as in strict.lua.
-- KEYS[1] shard tag. ARGV: handle. Reply: handle, 1 if it lives or 0.
-- Repeatable.
-- include: time
-- include: text
-- include: record
local tag, handle, now = KEYS[1], ARGV[1], now_ms()
local record = tag .. ':s:' .. handle
redis.call('HSET', tag .. ':gw', 'strict', now)
if not alive(tag, record, now) then
  return { handle, 0 }
end
local idle_ttl, abs_exp = unpack(redis.call('HMGET', record, 'idle_ttl', 'abs_exp'))
local idle_exp = whole(math.min(now + tonumber(idle_ttl), tonumber(abs_exp)))
redis.call('HSET', record, 'idle_exp', idle_exp)
redis.call('PEXPIREAT', record, idle_exp)
return { handle, 1 }
