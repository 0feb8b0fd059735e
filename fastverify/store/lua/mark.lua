#!lua flags=allow-oom
-- Ends the shard's sessions of a tenant, or all, that were made up to a time: every record is compared with it when it is looked at. Their
-- access tokens are refused by an entry, which is written when every shard has its mark.
-- KEYS[1] shard tag. ARGV: tenant or '*', time (ms) or '' for now, ms for which marks are kept. Reply: tenant or '*', time (ms).
-- Repeatable.
-- include: time
-- include: text
local marks, whose, now, keep = KEYS[1] .. ':marks', ARGV[1], now_ms(), tonumber(ARGV[3])
local mark = math.max(tonumber(ARGV[2]) or now, tonumber(redis.call('HGET', marks, whose) or 0))
redis.call('HSET', marks, whose, whole(mark))
local known = redis.call('HGETALL', marks)
for i = 1, #known, 2 do
  if tonumber(known[i + 1]) < now - keep then
    redis.call('HDEL', marks, known[i])
  end
end
return { whose, mark }
