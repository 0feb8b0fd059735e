#!lua
-- Adds a signing key, if its slot still holds the key that the caller knew (else another process was first), and drops others.
-- Public parts of static keys lie in a hash of their own: versions that know none would take them for dynamic ones, and sign with them.
-- KEYS[1] root tag. ARGV: slot ('newest' for a dynamic key; 'static:' and its algorithm), kid known in it or '', kid, public part,
--       sealed private part, how many parts the event has, these (events to keep, then as event.lua takes it), kids to drop...
-- Reply: 1 or 0.
-- include: time
-- include: events
local tag, slot, kid, parts = KEYS[1], ARGV[1], ARGV[3], tonumber(ARGV[6] or 0)
local meta = tag .. ':meta'
if (redis.call('HGET', meta, slot) or '') ~= ARGV[2] then
  return 0
end
redis.call('HSET', meta, slot, kid)
redis.call('HSET', tag .. (slot == 'newest' and ':keys' or ':static'), kid, ARGV[4])
redis.call('HSET', tag .. ':private', kid, ARGV[5])
if parts > 0 then
  event_log(tag, ARGV[7], now_ms())(unpack(ARGV, 8, 6 + parts))
end
for i = 7 + parts, #ARGV do
  for _, hash in ipairs({ ':keys', ':static', ':private' }) do
    redis.call('HDEL', tag .. hash, ARGV[i])
  end
end
return 1
