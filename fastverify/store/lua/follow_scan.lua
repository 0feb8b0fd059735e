#!lua flags=no-writes
-- Reads a part of one window's blacklist set. KEYS[1] shard tag. ARGV: window, cursor. Reply: cursor, entries.
return redis.call('SSCAN', KEYS[1] .. ':rev:' .. ARGV[1], ARGV[2], 'COUNT', 1000)
