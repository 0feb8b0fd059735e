#!lua flags=allow-oom
-- Ends sessions of one shard. Allowed when memory is full: revoking must be possible when minting is not.
-- KEYS[1] shard tag. ARGV: entry life (s), nonce, handles...
-- Reply: first handle, sequence number of the last entry, then the handles that were there.
-- include: time
-- include: session
local tag, life, nonce, now = KEYS[1], tonumber(ARGV[1]), ARGV[2], now_ms()
local reply, entries = { ARGV[3] }, {}
for i = 3, #ARGV do
  if end_session(tag, ARGV[i], life, now, entries) then
    reply[#reply + 1] = ARGV[i]
  end
end
table.insert(reply, 2, blacklist(tag, entries, nonce, now))
announce(tag)
return reply
