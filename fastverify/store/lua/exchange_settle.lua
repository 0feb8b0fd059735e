#!lua
-- Ends a turn of exchange_claim.lua: with the session that came of it, which is kept for who presents the token next, or with none.
-- KEYS[1] shard tag. ARGV: hash of the token, nonce of whose turn it is, handle or '', milliseconds for which it is kept.
-- Reply: hash, then 1; or 0 if the turn was over.
-- Repeatable: what it has written is what it would write.
local key, handle = KEYS[1] .. ':x:' .. ARGV[1], ARGV[3]
local mark = redis.call('GET', key)
if mark ~= 'turn ' .. ARGV[2] and mark ~= 'done ' .. handle then
  return { ARGV[1], 0 }
end
if handle == '' then
  redis.call('DEL', key)
else
  redis.call('SET', key, 'done ' .. handle, 'PX', ARGV[4])
end
return { ARGV[1], 1 }
