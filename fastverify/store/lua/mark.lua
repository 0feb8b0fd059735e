#!lua flags=allow-oom
-- Ends the shard's sessions of a tenant, or all, that were made up to a time: by a mark, which records are compared with when they are
-- looked at, and by an entry for the access tokens.
-- KEYS[1] shard tag. ARGV: entry life (s), nonce, entry, tenant or '*', time (ms), ms for which marks are kept.
-- Reply: entry, its sequence number.
-- Repeatable.
-- include: time
-- include: blacklist
local tag, now, keep = KEYS[1], now_ms(), tonumber(ARGV[6])
local marks, whose = tag .. ':marks', ARGV[4]
redis.call('HSET', marks, whose, whole(math.max(tonumber(ARGV[5]), tonumber(redis.call('HGET', marks, whose) or 0))))
local known = redis.call('HGETALL', marks)
for i = 1, #known, 2 do
  if tonumber(known[i + 1]) < now - keep then
    redis.call('HDEL', marks, known[i])
  end
end
local seq = blacklist(tag, ARGV[3], tonumber(ARGV[1]), ARGV[2], now)
announce(tag)
return { ARGV[3], seq }
