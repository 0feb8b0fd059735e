#!lua
-- Hands out once more the refresh token that goes with an access token of generation g, for another transport. What rotation.md says
-- of a redelivery holds here: the token's time begins anew, so that no rotation overtakes this reply, and a loop has an end.
-- KEYS[1] shard tag.
-- ARGV: handle, g, W (ms), D (ms), redeliveries allowed, entry life (s), 1 if the session is to be bound to an
--       anti-CSRF token or 0.
-- Reply: handle, verdict, now, then for AGAIN: the newest mark that concerns the session (ms, or 0), and the record's fields and
--        values; for HOLD: for how long (ms). OLD (refresh first), GONE and BUSY have nothing more.
-- include: time
-- include: record
-- include: primary
local tag, handle, g = KEYS[1], ARGV[1], tonumber(ARGV[2])
local window, debounce, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local life, bound = tonumber(ARGV[6]), ARGV[7]
local record, now = tag .. ':s:' .. handle, now_ms()
if not alive(tag, record, now) then
  return { handle, 'GONE', now }
end
local hold = hold_until(tag, now, debounce)
local got = redis.call('HMGET', record, 'G', 'handed_at', 'conf_at', 'redelivered', 'life', 'tenant')
local G, handed_at, conf_at, redelivered = tonumber(got[1]), tonumber(got[2]), tonumber(got[3] or nil), tonumber(got[4])
local longest = math.max(life, tonumber(got[5] or 0))

-- A new primary may not know of a newer token, which the client has beside an older access token.
if not knows_newest(record, hold, debounce) then
  if now < hold then
    return { handle, 'HOLD', now, whole(hold - now) }
  end
  return { handle, 'OLD', now }
end

-- A client whose access token is of generation g has the refresh token of g, or its child is on the way.
local child = g == G - 1 and window > 0 and (not conf_at or now <= conf_at + window)
if g ~= G and not child then
  return { handle, 'OLD', now }
end
redelivered = now - handed_at > debounce and 1 or redelivered + 1
if redelivered > limit then
  return { handle, 'BUSY', now }
end
-- As in a refresh with the current token: what came proves that it was delivered.
if g == G and not conf_at then
  redis.call('HSET', record, 'conf_at', whole(now))
end
redis.call('HSET', record, 'handed_at', whole(now), 'redelivered', redelivered, 'life', whole(longest), 'csrf', bound)
return { handle, 'AGAIN', now, newest_mark(tag, got[6]), unpack(redis.call('HGETALL', record)) }
