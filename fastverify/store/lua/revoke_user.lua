#!lua flags=allow-oom
-- Ends a user's sessions: one step over the user's index.
-- KEYS[1] shard tag. ARGV: user, tenant or '' for all, handle to spare or '', entry life (s), nonce.
-- Reply: user, sequence number of the last entry (0: none was written), then handle and tenant of each session that was there.
-- include: time
-- include: session
local tag, user, tenant, spare = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local life, nonce, now = tonumber(ARGV[4]), ARGV[5], now_ms()
local reply = { user, 0 }
for _, handle in ipairs(redis.call('ZRANGE', tag .. ':u:' .. user, 0, -1)) do
  local its = redis.call('HGET', tag .. ':s:' .. handle, 'tenant')
  if handle ~= spare and (tenant == '' or not its or its == tenant) then
    local there, seq = end_session(tag, handle, life, nonce, now)
    reply[2] = seq
    if there then
      reply[#reply + 1] = handle
      reply[#reply + 1] = its
    else
      redis.call('ZREM', tag .. ':u:' .. user, handle)
    end
  end
end
if reply[2] > 0 then
  announce(tag)
end
return reply
