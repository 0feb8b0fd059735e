#!lua flags=allow-oom
-- Whether a session lives, vouched for by a primary that can write (the write is the fence: an isolated old primary must not vouch).
-- KEYS[1] shard tag. ARGV: handle. Reply: handle, 1 or 0.
-- Repeatable.
-- include: time
-- include: record
local tag, handle, now = KEYS[1], ARGV[1], now_ms()
redis.call('HSET', tag .. ':gw', 'strict', now)
return { handle, alive(tag, tag .. ':s:' .. handle, now) and 1 or 0 }
