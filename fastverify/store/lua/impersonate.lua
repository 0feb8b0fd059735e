#!lua
-- A session is about to act as another user's, by a session that is made next, in another shard: writes down by which one, so that it
-- ends when this one does (parts/session.lua).
-- KEYS[1] shard tag. ARGV: handle, handle of the session to be made, how long that lives (ms), D (ms).
-- Reply: handle, verdict, now, then for OK: generation of the current refresh token, how long this session still lives at most (ms);
--        for HOLD: for how long (ms). OLD (refresh first) and GONE have nothing more.
-- Repeatable.
-- include: time
-- include: record
-- include: primary
local tag, handle, other, life, debounce = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local record, acts, now = tag .. ':s:' .. handle, tag .. ':acts:' .. handle, now_ms()
if not alive(tag, record, now) then
  return { handle, 'GONE', now }
end
local hold = hold_until(tag, now, debounce)
-- The generation is what the way back relies on (come_back.lua).
if not knows_newest(record, hold, debounce) then
  if now < hold then
    return { handle, 'HOLD', now, whole(hold - now) }
  end
  return { handle, 'OLD', now }
end
local G, abs_exp = unpack(redis.call('HMGET', record, 'G', 'abs_exp'))
redis.call('ZREMRANGEBYSCORE', acts, '-inf', whole(now))
redis.call('ZADD', acts, whole(now + life), other)
redis.call('PEXPIREAT', acts, redis.call('ZRANGE', acts, -1, -1, 'WITHSCORES')[2])
redis.call('HSET', record, 'acts', 1)
return { handle, 'OK', now, tonumber(G), tonumber(abs_exp) - now }
