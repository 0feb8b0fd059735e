#!lua flags=allow-oom
-- Where a follower begins: the tail of the shard's log (begun here if there is none), then the live windows. An entry up to the tail
-- is in its window's set, which is read next; a later one comes by the log: nothing is missed.
-- The sets are to be read from the same server, and then the tail once more (follow_tail.lua). The write is the fence, as in a poll.
-- KEYS[1] shard tag. ARGV: nonce for a genesis entry. Reply: seq, nonce, the log's genesis, this server process, windows...
-- Repeatable.
-- include: time
-- include: log
-- include: known
local tag, now = KEYS[1], now_ms()
local seq, nonce = log_tail(tag .. ':log', ARGV[1], now)
redis.call('HSET', tag .. ':gw', 'start', whole(now))
known_since(tag, now)
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
local reply = { seq, nonce, redis.call('GET', tag .. ':log:genesis') or '', server }
for _, window in ipairs(redis.call('ZRANGEBYSCORE', tag .. ':windows', whole(now / 1000), '+inf')) do
  reply[#reply + 1] = window
end
-- Followers that have not reported for an hour are gone.
for _, name in ipairs(redis.call('HKEYS', tag .. ':gw')) do
  local at = string.match(redis.call('HGET', tag .. ':gw', name), '%d+$')
  if name ~= 'primary' and tonumber(at) < now - 3600000 then
    redis.call('HDEL', tag .. ':gw', name)
  end
end
return reply
