#!lua flags=no-writes
-- The key ring, and what every process must know of the store. KEYS[1] root tag. ARGV: 1 to include the sealed private keys.
-- Reply: shards or 0, longest access lifetime (s), newest kid or '', now (ms), then {kid, public part, sealed private part or ''}...
-- include: time
local meta = redis.call('HMGET', KEYS[1] .. ':meta', 'shards', 'longest', 'newest')
local reply = { tonumber(meta[1] or 0), tonumber(meta[2] or 0), meta[3] or '', now_ms() }
local public = redis.call('HGETALL', KEYS[1] .. ':keys')
for i = 1, #public, 2 do
  local private = ARGV[1] == '1' and redis.call('HGET', KEYS[1] .. ':private', public[i]) or ''
  reply[#reply + 1] = { public[i], public[i + 1], private or '' }
end
return reply
