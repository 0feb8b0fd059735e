#!lua flags=allow-oom
-- Ends a user's sessions: one step over the user's index.
-- KEYS[1] shard tag. ARGV: user, tenant or '' for all, handle to spare or '', entry life (s), nonce.
-- Reply: user, then handle and tenant of each session that was there.
-- include: time
-- include: session
local tag, user, tenant, spare = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local life, nonce, now = tonumber(ARGV[4]), ARGV[5], now_ms()
local reply = { user }
for _, handle in ipairs(redis.call('ZRANGE', tag .. ':u:' .. user, 0, -1)) do
  local its = redis.call('HGET', tag .. ':s:' .. handle, 'tenant')
  if handle ~= spare and (tenant == '' or not its or its == tenant) then
    if end_session(tag, handle, life, nonce, now) then
      reply[#reply + 1] = handle
      reply[#reply + 1] = its
    else
      redis.call('ZREM', tag .. ':u:' .. user, handle)
    end
  end
end
return reply
