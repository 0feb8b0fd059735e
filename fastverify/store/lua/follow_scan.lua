#!lua flags=no-writes
-- Reads a part of one window's blacklist set. KEYS[1] shard tag. ARGV: window, cursor.
-- Reply: cursor, entries, the server process that the cursor is of: to another one it means nothing.
local reply = redis.call('SSCAN', KEYS[1] .. ':rev:' .. ARGV[1], ARGV[2], 'COUNT', 1000)
return { reply[1], reply[2], string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '' }
