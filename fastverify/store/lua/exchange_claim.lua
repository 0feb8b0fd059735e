#!lua
-- Whose turn it is to exchange another issuer's refresh token: of all who present one token at once, one asks that issuer.
-- KEYS[1] shard tag. ARGV: hash of the token, nonce of who asks, milliseconds for which the turn is theirs.
-- Reply: hash, then MINE; or BUSY while somebody else's turn lasts; or DONE and the handle of the session that came of it.
-- Repeatable: the nonce says that the turn is the caller's already.
local key, mine = KEYS[1] .. ':x:' .. ARGV[1], 'turn ' .. ARGV[2]
local mark = redis.call('GET', key)
if not mark then
  redis.call('SET', key, mine, 'PX', ARGV[3])
  return { ARGV[1], 'MINE' }
end
if mark == mine then
  return { ARGV[1], 'MINE' }
end
local handle = string.match(mark, '^done (.+)$')
if handle then
  return { ARGV[1], 'DONE', handle }
end
return { ARGV[1], 'BUSY' }
