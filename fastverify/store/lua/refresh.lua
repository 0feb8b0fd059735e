#!lua
-- Decides what a refresh token of generation g gets. The steps are those of rotation.md section 3; each is there because leaving it
-- out brings back a trace in which an honest client is thrown out, or a thief is not found.
-- KEYS[1] shard tag.
-- ARGV: handle, g, deadline (ms), W (ms), D (ms), redeliveries allowed, entry life (s), nonce, key id of the current secret, key id
--       of the presented token, events to keep (0: none).
-- Reply: handle, verdict, now, then for SAME, ADOPTED, ROTATED, AGAIN: the newest mark that concerns the session (ms, or 0), and the
--        record's fields and values without its data;
--        for THEFT: how old the token was, user, tenant. LATE, GONE and BUSY have nothing more.
-- include: time
-- include: record
-- include: session
-- include: primary
-- include: events
local tag, handle, g = KEYS[1], ARGV[1], tonumber(ARGV[2])
local deadline, window, debounce = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local limit, life, nonce, key, presented = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9], ARGV[10]
local record, now = tag .. ':s:' .. handle, now_ms()
local tell = event_log(tag, ARGV[11], now)

-- 0. A command that a dying connection delivers late must not act.
if now > deadline then
  return { handle, 'LATE', now }
end
local hold = hold_until(tag, now, debounce)

-- 1. Never "theft", never re-created. What a mark has cut off stays in the index: only some shards may have got the mark, and the
-- entry that ends the access tokens nowhere, so who ends the user's sessions next has to find it.
local lives, mark = alive(tag, record, now)
if not lives then
  local user, expires = unpack(redis.call('HMGET', record, 'user', 'idle_exp'))
  if user and tonumber(expires) <= now then
    redis.call('DEL', record)
    redis.call('ZREM', tag .. ':u:' .. user, handle)
  end
  return { handle, 'GONE', now }
end

local got = redis.call('HMGET', record, 'G', 'handed_at', 'conf_at', 'redelivered', 'idle_ttl', 'abs_exp', 'life', 'user', 'tenant')
local G, handed_at, conf_at = tonumber(got[1]), tonumber(got[2]), tonumber(got[3] or nil)
local redelivered, idle_ttl, abs_exp = tonumber(got[4]), tonumber(got[5]), tonumber(got[6])
local longest, user, tenant = math.max(life, tonumber(got[7] or 0)), got[8], got[9]

-- Every answered refresh slides the idle expiry; nothing moves the absolute one.
local function answer(verdict, ...)
  local idle_exp = math.min(now + idle_ttl, abs_exp)
  redis.call('HSET', record, 'idle_exp', whole(idle_exp), 'seen_at', whole(now), 'life', whole(longest), ...)
  redis.call('PEXPIREAT', record, whole(idle_exp))
  tell('session_refreshed', handle, user, tenant, string.lower(verdict))
  local fields = redis.call('HGETALL', record)
  local reply = { handle, verdict, now, mark }
  for i = 1, #fields, 2 do
    if fields[i] ~= 'data' then
      reply[#reply + 1] = fields[i]
      reply[#reply + 1] = fields[i + 1]
    end
  end
  return reply
end

-- 2. The tag was checked, so we issued it: this primary lost writes. The generation keeps the key that it was made under.
if g > G then
  return answer('ADOPTED', 'G', g, 'handed_at', whole(now), 'conf_at', whole(now), 'key', presented)
end

-- 3. The current token: its arrival proves that it was delivered. Inside D, or on a new primary, it is not rotated.
if g == G then
  if not conf_at then
    redis.call('HSET', record, 'conf_at', whole(now))
  end
  if (debounce > 0 and now - handed_at <= debounce) or now < hold then
    return answer('SAME')
  end
  redis.call('HDEL', record, 'conf_at')
  return answer('ROTATED', 'G', G + 1, 'handed_at', whole(now), 'redelivered', 0, 'key', key)
end

-- 4. The parent, while its child may not have arrived: the same child again.
if g == G - 1 and window > 0 and (not conf_at or now <= conf_at + window or now < hold) then
  redelivered = now - handed_at > debounce and 1 or redelivered + 1
  if redelivered > limit then
    return { handle, 'BUSY', now }
  end
  return answer('AGAIN', 'redelivered', redelivered, 'handed_at', whole(now))
end

-- 5. Reuse of a token whose child has been used.
local entries = {}
end_session(tag, handle, life, now, entries)
blacklist(tag, entries, nonce, now)
announce(tag)
local reuse = g == G - 1 and 'one_behind' or 'older'
tell('token_theft', handle, user, tenant, reuse)
return { handle, 'THEFT', now, reuse, user, tenant }
