#!lua flags=allow-oom
-- How many followers that may still serve have yet to report that they have applied an entry. One that has been silent for as long as it
-- serves without a poll has gone stale by then. The write is the fence: those who do not report here may report to another primary.
-- KEYS[1] shard tag. ARGV: seq, its nonce, ms for which a follower serves without a poll.
-- Reply: 'LOST' if the log does not have that entry, else how many; one more while there may be some that have not reported here yet.
-- Repeatable.
-- include: time
-- include: known
local tag, seq, now = KEYS[1], tonumber(ARGV[1]), now_ms()
redis.call('HSET', tag .. ':gw', 'reached', whole(now))
local item = redis.call('XRANGE', tag .. ':log', whole(seq) .. '-0', whole(seq) .. '-0')[1]
if not item or item[2][6] ~= ARGV[2] then
  return 'LOST'
end
local yet = now - known_since(tag, now) > tonumber(ARGV[3]) and 0 or 1
for _, report in ipairs(redis.call('HVALS', tag .. ':gw')) do
  local stands, serves, at = string.match(report, '^(%d+) (%d+) (%d+)$')
  if stands and tonumber(stands) < seq and tonumber(at) + tonumber(serves) >= now then
    yet = yet + 1
  end
end
return yet
