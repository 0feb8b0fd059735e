#!lua flags=allow-oom
-- Ends sessions of one shard. Allowed when memory is full: revoking must be possible when minting is not.
-- KEYS[1] shard tag. ARGV: entry life (s), nonce, handles...
-- Reply: first handle, sequence number of the last entry, then the handles that were there.
-- include: time
-- include: session
local tag, life, nonce, now = KEYS[1], tonumber(ARGV[1]), ARGV[2], now_ms()
local reply = { ARGV[3], 0 }
for i = 3, #ARGV do
  local there, seq = end_session(tag, ARGV[i], life, nonce, now)
  reply[2] = seq
  if there then
    reply[#reply + 1] = ARGV[i]
  end
end
announce(tag)
return reply
