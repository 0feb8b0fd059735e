#!lua
-- Makes a session's record and index entry; ends the session that it replaces and those beyond the user's limit, in the same step.
-- KEYS[1] shard tag.
-- ARGV: handle, user, tenant, idle ttl (ms), absolute ttl (ms), D (ms), most sessions of the user (0: no limit), handle to end or '',
--       entry life (s), nonce, events to keep (0: none), then the record's other fields and values.
-- Reply: handle, now, newest mark that concerns the session (ms, or 0), sequence number of the last entry (0: none was written), then
--        handle, tenant, user and why of each that was ended; tenant and user are '' if it was not there. Only handle and now if there is
--        such a session already, which is left as it is: another call has been told to make the same one.
-- include: time
-- include: record
-- include: session
-- include: primary
-- include: events
local tag, handle, user, tenant = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local idle_ttl, abs_ttl, debounce, most = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local previous, life, nonce, keep = ARGV[8], tonumber(ARGV[9]), ARGV[10], ARGV[11]
local record, index, now = tag .. ':s:' .. handle, tag .. ':u:' .. user, now_ms()
if redis.call('EXISTS', record) == 1 then
  return { handle, now }
end
local abs_exp = now + abs_ttl
local idle_exp = math.min(now + idle_ttl, abs_exp)
hold_until(tag, now, debounce)
local tell = event_log(tag, keep, now)

local mark = newest_mark(tag, tenant)
local reply, entries = { handle, now, mark, 0 }, {}
local function finish(old, why)
  local its, whose = end_session(tag, old, life, now, entries)
  if its then
    tell('session_revoked', old, whose, its, why)
  end
  for _, value in ipairs({ old, its or '', whose or '', why }) do
    reply[#reply + 1] = value
  end
end
if previous ~= '' then
  finish(previous, 'replaced')
end

-- The index may name sessions that expired idle: they are swept here, where it grows. Where all have to be counted, all are looked
-- at; else a few by lot, which keeps the dead few among many at a cost that does not grow with the index. Those that a mark has cut
-- off do not count, and stay until they expire (refresh.lua says why).
local LOT = 8
local others = {}
for _, other in ipairs(most > 0 and redis.call('ZRANGE', index, 0, -1) or redis.call('ZRANDMEMBER', index, LOT)) do
  local its = tag .. ':s:' .. other
  if alive(tag, its, now) then
    others[#others + 1] = { other, tonumber(redis.call('HGET', its, 'created_at')) }
  elseif tonumber(redis.call('HGET', its, 'idle_exp') or 0) <= now then
    redis.call('DEL', its)
    redis.call('ZREM', index, other)
  end
end
if most > 0 then
  table.sort(others, function(a, b)
    return a[2] < b[2]
  end)
  for i = 1, #others - most + 1 do
    finish(others[i][1], 'limit')
  end
end

-- A mark may be of a clock that is a little ahead: what is made after it lives.
local at, created_at = whole(now), whole(math.max(now, mark + 1))
redis.call('HSET', record, 'user', user, 'tenant', tenant, 'G', 0, 'handed_at', at, 'created_at', created_at, 'seen_at', at,
  'redelivered', 0, 'life', whole(life),
  'idle_ttl', whole(idle_ttl), 'idle_exp', whole(idle_exp), 'abs_exp', whole(abs_exp))
for i = 12, #ARGV, 2 do
  redis.call('HSET', record, ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIREAT', record, whole(idle_exp))
redis.call('ZADD', index, whole(abs_exp), handle)
redis.call('PEXPIREAT', index, redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2])
tell('session_created', handle, user, tenant, '')
if #entries > 0 then
  reply[4] = blacklist(tag, entries, nonce, now)
  announce(tag)
end
return reply
