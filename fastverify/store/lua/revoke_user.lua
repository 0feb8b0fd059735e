#!lua flags=allow-oom
-- Ends a user's sessions, but no more than a call may end, for nobody else is served meanwhile: called again where there are more. Each
-- call looks at the whole of what is there by then, so the last one leaves none, also of those that were made between two calls.
-- KEYS[1] shard tag. ARGV: user, tenant or '' for all, handle to spare or '', entry life (s), nonce, most sessions to end, events to
--       keep (0: none), why.
-- Reply: user, now, 1 if there are more, sequence number of the last entry (0: none was written), then handle and tenant of each session
--        that was there.
-- include: time
-- include: session
-- include: events
local tag, user, tenant, spare = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local life, nonce, most, now = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), now_ms()
local why, tell = ARGV[8], event_log(tag, ARGV[7], now)
local index, reply, entries = tag .. ':u:' .. user, { user, now, 0, 0 }, {}

local function is_meant(handle)
  local its = tenant ~= '' and redis.call('HGET', tag .. ':s:' .. handle, 'tenant')
  return handle ~= spare and (not its or its == tenant)
end

-- No more of the index than is needed: of any `most + 2` sessions one may be spared, and one shows that there are more.
for _, handle in ipairs(redis.call('ZRANGE', index, 0, tenant == '' and most + 1 or -1)) do
  if is_meant(handle) then
    if #entries >= most then
      reply[3] = 1
      break
    end
    local its = end_session(tag, handle, life, now, entries)
    if its then
      tell('session_revoked', handle, user, its, why)
      reply[#reply + 1] = handle
      reply[#reply + 1] = its
    else
      redis.call('ZREM', index, handle)
    end
  end
end
if #entries > 0 then
  reply[4] = blacklist(tag, entries, nonce, now)
  announce(tag)
end
return reply
