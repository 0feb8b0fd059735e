#!lua flags=allow-oom
-- Ends the shard's sessions of a tenant, or all, that were made up to a time: every record is compared with it when it is looked at. Their
-- access tokens are refused by an entry, which is written when every shard has its mark. A mark for now is of a later second than those
-- before it: what was made or issued after them bears a later time, and a later second, than theirs (create.lua, authority.py).
-- KEYS[1] shard tag. ARGV: tenant or '*', time (ms) or '' for now, ms for which marks are kept. Reply: tenant or '*', time (ms).
-- Repeatable.
-- include: time
-- include: text
local marks, whose, now, keep = KEYS[1] .. ':marks', ARGV[1], now_ms(), tonumber(ARGV[3])
local mark, known = tonumber(ARGV[2]) or now, redis.call('HGETALL', marks)
for i = 1, #known, 2 do
  local name, before = known[i], tonumber(known[i + 1])
  if ARGV[2] == '' and (whose == '*' or name == '*' or name == whose) then
    mark = math.max(mark, (math.floor(before / 1000) + 1) * 1000)
  elseif name == whose then
    mark = math.max(mark, before)
  end
  if before < now - keep then
    redis.call('HDEL', marks, name)
  end
end
redis.call('HSET', marks, whose, whole(mark))
return { whose, mark }
