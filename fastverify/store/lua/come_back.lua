#!lua
-- Hands out a session's refresh token to a client that has had another session's in the place of it, and has none of this one any
-- more. As in a redelivery (rotation.md) the token's time begins anew.
-- Which generation the client had does not matter, as long as none that was ever handed out is newer than this one: then a report of
-- an access token can come in from somewhere, and make the token that is handed out here an old one. Only a new primary may not know
-- the newest. When it has held back, and W after it has itself handed out a token last, nothing is under way any more; so it goes beyond
-- all that its predecessor can have handed out: when the client left, the generation was g, and a refresh that was under way has made
-- at most one more. (tests/model/rotation.py shows what happens without each of these.)
-- KEYS[1] shard tag.
-- ARGV: handle, the session's that acted for it, g or -1 if it is not known, W (ms), D (ms), redeliveries allowed, entry life (s), 1 if
--       the session is to be bound to an anti-CSRF token, 0 if not, '' to leave that as it is.
-- Reply: handle, verdict, now, then for AGAIN: the newest mark that concerns the session (ms, or 0), and the record's fields and
--        values; for HOLD: for how long (ms). GONE and BUSY have nothing more.
-- include: time
-- include: record
-- include: primary
local tag, handle, other, g = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local window, debounce, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local life, bound = tonumber(ARGV[7]), ARGV[8]
local record, now = tag .. ':s:' .. handle, now_ms()
if not alive(tag, record, now) then
  return { handle, 'GONE', now }
end
local hold = hold_until(tag, now, debounce)
if not knows_newest(record, hold, debounce) then
  local G, handed_at = unpack(redis.call('HMGET', record, 'G', 'handed_at'))
  local clear = math.max(hold, tonumber(handed_at) + window + 1)
  if now < clear then
    return { handle, 'HOLD', now, whole(clear - now) }
  end
  if tonumber(G) <= g then
    redis.call('HSET', record, 'G', whole(g + 1), 'redelivered', 0)
    redis.call('HDEL', record, 'conf_at')
  end
end
local got = redis.call('HMGET', record, 'handed_at', 'redelivered', 'life', 'tenant', 'idle_ttl', 'abs_exp')
local redelivered = now - tonumber(got[1]) > debounce and 1 or tonumber(got[2]) + 1
if redelivered > limit then
  return { handle, 'BUSY', now }
end
local idle_exp = whole(math.min(now + tonumber(got[5]), tonumber(got[6])))
redis.call('HSET', record, 'handed_at', whole(now), 'seen_at', whole(now), 'redelivered', redelivered,
  'life', whole(math.max(life, tonumber(got[3] or 0))), 'idle_exp', idle_exp)
if bound ~= '' then
  redis.call('HSET', record, 'csrf', bound)
end
redis.call('PEXPIREAT', record, idle_exp)
redis.call('ZREM', tag .. ':acts:' .. handle, other)
return { handle, 'AGAIN', now, newest_mark(tag, got[4]), unpack(redis.call('HGETALL', record)) }
