#!lua flags=allow-oom
-- Ends sessions of one shard. Allowed when memory is full: revoking must be possible when minting is not.
-- KEYS[1] shard tag. ARGV: entry life (s), nonce, events to keep (0: none), why, handles...
-- Reply: first handle, now, sequence number of the last entry, then handle, tenant and user of each that was there.
-- include: time
-- include: session
-- include: events
local tag, life, nonce, now = KEYS[1], tonumber(ARGV[1]), ARGV[2], now_ms()
local why, tell = ARGV[4], event_log(tag, ARGV[3], now)
local reply, entries = { ARGV[5], now, 0 }, {}
for i = 5, #ARGV do
  local its, user = end_session(tag, ARGV[i], life, now, entries)
  if its then
    tell('session_revoked', ARGV[i], user, its, why)
    for _, value in ipairs({ ARGV[i], its, user }) do
      reply[#reply + 1] = value
    end
  end
end
reply[3] = blacklist(tag, entries, nonce, now)
announce(tag)
return reply
