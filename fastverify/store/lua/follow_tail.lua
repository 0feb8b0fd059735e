#!lua flags=allow-oom
-- The end of the shard's log after the sets have been read, which the follower then has to pass: what they showed may be undone by a
-- failover that leaves the first tail as it was (follow_start.lua). The write is the fence, as in a poll.
-- KEYS[1] shard tag. ARGV: nonce for a genesis entry. Reply: seq, nonce, this server process.
-- Repeatable.
-- include: time
-- include: log
local tag, now = KEYS[1], now_ms()
local seq, nonce = log_tail(tag .. ':log', ARGV[1], now)
redis.call('HSET', tag .. ':gw', 'start', whole(now))
return { seq, nonce, string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '' }
