#!lua
-- Adds a signing key, if the newest one is still the one that the caller knew (else another process was first), and drops retired ones.
-- KEYS[1] root tag. ARGV: newest kid known or '', kid, public part, sealed private part, retired kids... Reply: 1 or 0.
local tag = KEYS[1]
local meta = tag .. ':meta'
if (redis.call('HGET', meta, 'newest') or '') ~= ARGV[1] then
  return 0
end
redis.call('HSET', meta, 'newest', ARGV[2])
redis.call('HSET', tag .. ':keys', ARGV[2], ARGV[3])
redis.call('HSET', tag .. ':private', ARGV[2], ARGV[4])
for i = 5, #ARGV do
  redis.call('HDEL', tag .. ':keys', ARGV[i])
  redis.call('HDEL', tag .. ':private', ARGV[i])
end
return 1
