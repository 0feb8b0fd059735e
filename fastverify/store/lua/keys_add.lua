#!lua
-- Adds a signing key, if its slot still holds the key that the caller knew (else another process was first), and drops others.
-- Public parts of static keys lie in a hash of their own: versions that know none would take them for dynamic ones, and sign with them.
-- KEYS[1] root tag. ARGV: slot ('newest' for a dynamic key; 'static:' and its algorithm), kid known in it or '', kid, public part,
--       sealed private part, kids to drop... Reply: 1 or 0.
local tag, slot, kid = KEYS[1], ARGV[1], ARGV[3]
local meta = tag .. ':meta'
if (redis.call('HGET', meta, slot) or '') ~= ARGV[2] then
  return 0
end
redis.call('HSET', meta, slot, kid)
redis.call('HSET', tag .. (slot == 'newest' and ':keys' or ':static'), kid, ARGV[4])
redis.call('HSET', tag .. ':private', kid, ARGV[5])
for i = 6, #ARGV do
  for _, hash in ipairs({ ':keys', ':static', ':private' }) do
    redis.call('HDEL', tag .. hash, ARGV[i])
  end
end
return 1
